/* test_parking.c: requests that wait: each comes out once, at its time or when there is news. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "daemon/parking.h"

enum { COUNT = 300, ROUNDS = 40 };

struct request {
    struct parked parked; /* first: it is its request */
    struct parking *parking;
    atomic_int times_out;
    double came_out_at;
    int rounds; /* to go */
    sem_t *done;
};

/* As the server does: parked again as long as there is something to wait for. */
static void on_out(struct parked *parked)
{
    struct request *request = (struct request *)parked;
    request->came_out_at = clock_seconds();
    atomic_fetch_add(&request->times_out, 1);
    if (--request->rounds > 0)
        parking_add(request->parking, parked, clock_seconds() + (double)(request->rounds % 5) / 1000);
    else
        sem_post(request->done);
}

static struct parking *open_parking(struct request *requests, int count, int rounds, sem_t *done)
{
    struct parking *parking;
    struct error error;
    assert_int_equal(parking_open(&parking, on_out, &error), 0);
    sem_init(done, 0, 0);
    for (int i = 0; i < count; i++)
        requests[i] = (struct request){.parking = parking, .rounds = rounds, .done = done};
    return parking;
}

static void who_waits_comes_out_at_its_time_and_not_before(void **state)
{
    (void)state;
    static struct request requests[2];
    sem_t done;
    struct parking *parking = open_parking(requests, 2, 1, &done);
    double soon = clock_seconds() + 0.05, later = soon + 3600;
    parking_add(parking, &requests[0].parked, later);
    parking_add(parking, &requests[1].parked, soon);
    sem_wait(&done);
    assert_true(requests[1].came_out_at >= soon);
    assert_int_equal(atomic_load(&requests[0].times_out), 0);
    parking_close(parking);
    sem_destroy(&done);
}

static void news_end_the_waiting_once_however_often_they_are_told(void **state)
{
    (void)state;
    static struct request requests[COUNT];
    sem_t done;
    struct parking *parking = open_parking(requests, COUNT, 1, &done);
    for (int i = 0; i < COUNT; i++)
        parking_add(parking, &requests[i].parked, clock_seconds() + 3600);
    for (int i = COUNT; i-- > 0;)
        for (int times = 0; times < 3; times++)
            parking_end(parking, &requests[i].parked);
    for (int i = 0; i < COUNT; i++)
        sem_wait(&done);
    parking_stop(parking);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(atomic_load(&requests[i].times_out), 1);
    parking_close(parking);
    sem_destroy(&done);
}

struct news {
    struct parking *parking;
    struct request *requests;
    atomic_bool enough;
};

static void *tell_news(void *argument)
{
    struct news *news = argument;
    while (!atomic_load(&news->enough))
        for (int i = 0; i < COUNT; i++)
            parking_end(news->parking, &news->requests[i].parked);
    return NULL;
}

static void times_that_end_while_there_are_news_lose_and_double_nobody(void **state)
{
    (void)state;
    static struct request requests[COUNT];
    sem_t done;
    struct parking *parking = open_parking(requests, COUNT, ROUNDS, &done);
    struct news news = {.parking = parking, .requests = requests};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, tell_news, &news), 0);
    for (int i = 0; i < COUNT; i++)
        parking_add(parking, &requests[i].parked, clock_seconds() + (double)(i % 5) / 1000);
    for (int i = 0; i < COUNT; i++)
        sem_wait(&done);
    atomic_store(&news.enough, true);
    pthread_join(thread, NULL);
    parking_stop(parking);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(atomic_load(&requests[i].times_out), ROUNDS);
    parking_close(parking);
    sem_destroy(&done);
}

static void who_still_waits_at_the_end_is_left_alone(void **state)
{
    (void)state;
    static struct request request;
    sem_t done;
    struct parking *parking = open_parking(&request, 1, 1, &done);
    parking_add(parking, &request.parked, clock_seconds() + 3600);
    parking_stop(parking);
    parking_end(parking, &request.parked);
    assert_int_equal(atomic_load(&request.times_out), 0);
    parking_close(parking);
    sem_destroy(&done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_comes_out_at_its_time_and_not_before),
        cmocka_unit_test(news_end_the_waiting_once_however_often_they_are_told),
        cmocka_unit_test(times_that_end_while_there_are_news_lose_and_double_nobody),
        cmocka_unit_test(who_still_waits_at_the_end_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
