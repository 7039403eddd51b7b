"""tools/cuda_model.py: what it makes of cuobjdump's words."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.cuda_model import (  # noqa: E402
    CARDS,
    Usage,
    blocks_held,
    bodies,
    kernel_name,
    main_loop,
    threads_of,
    usages,
)

RESOURCES = """
Fatbin elf code:
arch = sm_90
 Function void product_kernel<(layout)1, 2>(matrix, int):
  REG:64 STACK:0 SHARED:8704 LOCAL:0 CONSTANT[0]:600 TEXTURE:0
 Function combine_kernel(batch):
  REG:32 STACK:8 SHARED:0 LOCAL:0 CONSTANT[0]:600 TEXTURE:0
arch = sm_120
 Function combine_kernel(batch):
  REG:40 STACK:0 SHARED:16 LOCAL:0 CONSTANT[0]:600 TEXTURE:0
"""

SASS = """
\t\tFunction : void product_kernel<(layout)1, 2>(matrix, int)
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   MOV R2, RZ ;
        /*0020*/                   IADD3 R2, R2, 0x1, RZ ;
        /*0030*/                   ISETP.GE.AND P0, PT, R2, R3, PT ;
        /*0040*/              @!P0 BRA 0x20 ;
        /*0050*/                   HMMA.16816.F32.BF16 R8, R4, R2, R8 ;
        /*0060*/                   IADD3 R5, R5, 0x1, RZ ;
        /*0070*/              @!P1 BRA 0x50 ;
        /*0080*/                   ISETP.GE.AND P2, PT, R5, R6, PT ;
        /*0090*/              @!P2 BRA 0x10 ;
        /*00a0*/                   BRA 0xa0;
"""


def test_a_kernels_name_keeps_the_brackets_of_its_template() -> None:
    assert kernel_name("void product_kernel<(layout)1, 2>(matrix, int)") == "product_kernel<(layout)1, 2>"
    assert kernel_name("combine_kernel(batch)") == "combine_kernel"


def test_registers_and_spills_are_read_of_every_card() -> None:
    found = usages(RESOURCES)
    assert found["sm_90"]["product_kernel<(layout)1, 2>"] == Usage(64, 0, 8704)
    assert found["sm_90"]["combine_kernel"].stack_bytes == 8
    assert found["sm_120"]["combine_kernel"] == Usage(40, 0, 16)


def test_the_threads_of_a_block_are_read_from_the_ptx() -> None:
    text = ".visible .entry combine_kernel(batch)(\n.param .b8 p[8]\n)\n.maxntid 128, 1, 1\n{"
    assert threads_of(text) == {"combine_kernel": 128}


def test_the_shortest_loop_that_holds_the_products_is_counted_and_a_trap_at_the_end_is_none() -> None:
    ((name, body),) = bodies(SASS)
    assert name == "product_kernel<(layout)1, 2>"
    assert len(body) == 11
    assert main_loop(body) == 3
    elsewhere = [(address, "HMMA.16816.F32.BF16 R8, R4, R2, R8" if address == 0x80 else code) for address, code in body]
    assert main_loop([*elsewhere[:5], (0x50, "MOV R2, RZ"), *elsewhere[6:]]) == 9


def test_a_multiprocessor_holds_what_registers_threads_and_shared_memory_leave_room_for() -> None:
    assert blocks_held(CARDS["sm_90"], Usage(64, 0, 0), 512, 0) == 2  # 1,024 threads of 64 registers are all of them
    assert blocks_held(CARDS["sm_90"], Usage(32, 0, 0), 256, 0) == 8  # 2,048 threads
    assert blocks_held(CARDS["sm_86"], Usage(32, 0, 0), 256, 0) == 6  # 1,536 threads
    assert blocks_held(CARDS["sm_86"], Usage(64, 0, 0), 128, 49 << 10) == 2  # two times 50 KB
    assert blocks_held(CARDS["sm_80"], Usage(168, 0, 0), 128, 0) == 3  # registers: 12 warps
