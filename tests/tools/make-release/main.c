/* make-release: another published form of a model folder, for comparisons by hand (tests/golden/releases.h).
 *
 *   make-release MODEL_DIR INTO_DIR [GROUP [4|8]]   as converted for MLX; with GROUP quantised, to 4 bits or 8. A VAE
 *                                                 in MODEL_DIR comes along
 */
#include "tests/golden/releases.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct error error = {0};
    char from[4096], to[4096];
    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: make-release MODEL_DIR INTO_DIR [GROUP [4|8]]\n");
        return 2;
    }
    if (release_mlx(argv[1], argv[2], argc > 3 ? atoi(argv[3]) : 0, argc > 4 ? atoi(argv[4]) : 4, false, &error)) {
        fprintf(stderr, "make-release: %s\n", error.text);
        return 1;
    }
    snprintf(from, sizeof from, "%.4000s/Wan2.2_VAE.pth", argv[1]);
    snprintf(to, sizeof to, "%.4000s/Wan2.2_VAE.pth", argv[2]);
    return access(from, R_OK) || !symlink(from, to) ? 0 : 1;
}
