"""Coefficients of the polynomials of `mathlib`, lowest power first, as exact hexadecimal floats.

Enters: nothing.  Leaves: one tuple a table.  Never here: arithmetic.  Written by tools/fit_polynomials.py, which says
what each one approximates and where; the comment is the largest weighted error.
"""

from __future__ import annotations


def _exact(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))


EXP_FLOAT32 = _exact(  # 2**-28.2
    """0x1p-1 0x1.55548ep-3 0x1.55545ep-5 0x1.123b9p-7 0x1.6db456p-10"""
)
EXP_FLOAT64 = _exact(  # 2**-64.0
    """0x1p-1 0x1.555555555555cp-3 0x1.555555555555ep-5 0x1.111111110eb95p-7 0x1.6c16c16c13549p-10
    0x1.a01a01b3c6eaap-13 0x1.a01a01b467681p-16 0x1.71ddef75d0f2fp-19 0x1.27e4bf0c8a416p-22 0x1.af6d01f8d4cc7p-26
    0x1.1f9e24d0196f4p-29"""
)
EXP2_FLOAT32 = _exact(  # 2**-29.0
    """0x1.62e43p-1 0x1.ebfbep-3 0x1.c6aedp-5 0x1.3b29aap-7 0x1.5f47aep-10 0x1.448fe2p-13"""
)
EXP2_FLOAT64 = _exact(  # 2**-64.4
    """0x1.62e42fefa39efp-1 0x1.ebfbdff82c58fp-3 0x1.c6b08d704a0d1p-5 0x1.3b2ab6fba4e81p-7 0x1.5d87fe78a22cep-10
    0x1.430912f868d91p-13 0x1.ffcbfc75e428cp-17 0x1.62c0224d973dbp-20 0x1.b524db53cd0f3p-24 0x1.e4cee86ce96a3p-28
    0x1.ea041effe2abfp-32 0x1.c4da61f15c6fdp-36"""
)
EXP2_SHORT = _exact(  # 2**-34.3
    """0x1.62e42fef7b7p-1 0x1.ebfbe07ab55c5p-3 0x1.c6b08df448cb9p-5 0x1.3b29f10091f0dp-7 0x1.5d8723b3e2f97p-10
    0x1.445e6892119dfp-13 0x1.00f131460c924p-16"""
)
TANH_FLOAT32 = _exact(  # 2**-27.8
    """-0x1.555534p-2 0x1.11075ep-3 -0x1.b842c4p-5 0x1.524c3ep-6 -0x1.7679fcp-8"""
)
TANH_FLOAT64 = _exact(  # 2**-61.3
    """-0x1.5555555555552p-2 0x1.1111111110c6p-3 -0x1.ba1ba1b9d2a93p-5 0x1.664f487105eccp-6 -0x1.226e32d84c7f3p-7
    0x1.d6d35b978653ap-9 -0x1.7d9c44d02a66bp-10 0x1.350c1e3742d6fp-11 -0x1.f119d51f91f2dp-13 0x1.803255ab1ad77p-14
    -0x1.fb208b6af176fp-16 0x1.96a3a28f0cbaep-18"""
)
SINH_FLOAT32 = _exact(  # 2**-31.5
    """0x1.555556p-3 0x1.1110e2p-7 0x1.a02156p-13 0x1.75a6f6p-19"""
)
SINH_FLOAT64 = _exact(  # 2**-61.8
    """0x1.5555555555556p-3 0x1.111111111102p-7 0x1.a01a01a036c66p-13 0x1.71de3a3b6ab48p-19 0x1.ae646f976841cp-26
    0x1.61171d2f8930ap-33 0x1.b5bb5e31ea5fap-41"""
)
ERF_SMALL_FLOAT32 = _exact(  # 2**-27.7
    """0x1.06eba8p-3 -0x1.812736p-2 0x1.ce2b02p-4 -0x1.b7d344p-6 0x1.52cf88p-8 -0x1.9b114p-11 0x1.31570cp-14"""
)
ERF_LARGE_FLOAT32 = _exact(  # 2**-25.6
    """0x1.ffcaaap-1 0x1.1d81eep-9 -0x1.64f28ap-8 0x1.11a29ap-7 -0x1.1a52a6p-7 0x1.90b0bep-8 -0x1.71377cp-9
    0x1.20e86ep-11 0x1.2ae4dcp-12 -0x1.130398p-12 0x1.06bc58p-14 0x1.dd6496p-17 -0x1.36f9fep-17 0x1.1e7dbep-20"""
)
ERF_SMALL_FLOAT64 = _exact(  # 2**-55.9
    """0x1.06eba8214db68p-3 -0x1.812746b03799cp-2 0x1.ce2f21a03f78cp-4 -0x1.b82ce311a3033p-6 0x1.565bccedd5796p-8
    -0x1.c02dae8a14858p-11 0x1.f9a2920fdf96ep-14 -0x1.f4c7e232fb0aap-17 0x1.b9683691b7a84p-20
    -0x1.5b78755f36dfdp-23 0x1.d34f3bae2b1a1p-27 -0x1.a08b233e505c8p-31"""
)
ERFCX_FLOAT64 = _exact(  # 2**-61.3
    """0x1.6e9827d229d2fp-3 -0x1.4e102b9cf8de4p-2 0x1.f6ff2040ddd66p-3 -0x1.336ffbf0938dap-3 0x1.258b13c0bda4dp-4
    -0x1.8fa584ac91b41p-6 0x1.17c9d6ddb61e9p-8 0x1.735b26db89444p-11 -0x1.37f395cb2f7a2p-11 0x1.a542c39cf6d7cp-15
    0x1.2c6941059c4c9p-14 -0x1.b043eba88d80bp-18 -0x1.b98ade1f12d17p-18"""
)
LOG_FLOAT32 = _exact(  # 2**-30.4
    """0x1.555546p-2 -0x1.ffffeep-3 0x1.99a546p-3 -0x1.5562e2p-3 0x1.2332c2p-3 -0x1.fb4336p-4 0x1.e65096p-4
    -0x1.e2e958p-4 0x1.1b426p-4"""
)
LOG_FLOAT64 = _exact(  # 2**-58.5
    """0x1.5555555555592p-1 0x1.999999997fed9p-2 0x1.24924941e725p-2 0x1.c71c520e353f9p-3 0x1.74663e69c7a7dp-3
    0x1.39a1bd4a7031bp-3 0x1.2f059e9f824abp-3"""
)
LOG2_SHORT = _exact(  # 2**-43.6
    """0x1.71547652b825p+1 0x1.ec709dc53e3d9p-1 0x1.2776c291334d1p-1 0x1.a61a305ec1f7p-2 0x1.47951671767b7p-2
    0x1.21b46c2b0bc3ap-2"""
)
LOG2_REST = _exact(  # 2**-71.9
    """0x1.2776c50ef9bfcp-1 0x1.a61762a7aeddfp-2 0x1.484b13d6accd7p-2 0x1.0c9a853b06cf6p-2 0x1.c68ee954422dep-3
    0x1.8a09b9b5fc1d1p-3 0x1.58fca30b9bb4dp-3 0x1.61f2485cca567p-3"""
)
SIN_FLOAT32 = _exact(  # 2**-28.0
    """-0x1.555546p-3 0x1.110774p-7 -0x1.99516ep-13"""
)
COS_FLOAT32 = _exact(  # 2**-33.1
    """0x1.55554ap-5 -0x1.6c0c1ap-10 0x1.99e0fp-16"""
)
SIN_SHORT = _exact(  # 2**-37.5
    """-0x1.5555554c85972p-3 0x1.1111086fc7f82p-7 -0x1.a00f7e51aee9bp-13 0x1.6cd0cfb3c7fb6p-19"""
)
COS_SHORT = _exact(  # 2**-33.2
    """0x1.55554a82d0d0fp-5 -0x1.6c0c6c60912b1p-10 0x1.99f90d241e761p-16"""
)
SIN_FLOAT64 = _exact(  # 2**-57.9
    """-0x1.5555555555548p-3 0x1.111111110f716p-7 -0x1.a01a019be32dbp-13 0x1.71de354e06e8cp-19 -0x1.ae5e4498ccd5fp-26
    0x1.5d88ff50c10afp-33"""
)
COS_FLOAT64 = _exact(  # 2**-64.1
    """0x1.555555555554bp-5 -0x1.6c16c16c15003p-10 0x1.a01a019c8b2f1p-16 -0x1.27e4f7ed09418p-22 0x1.1ee9d79c1f9e3p-29
    -0x1.8fa3c9ac03182p-37"""
)
ATAN_SHORT = _exact(  # 2**-30.5
    """-0x1.55554953e9b61p-2 0x1.9991a8b35c444p-3 -0x1.23b65c4fbb1b6p-3 0x1.b1fc6b96a9bf6p-4 -0x1.f2378b72f3959p-5"""
)
ATAN_FLOAT64 = _exact(  # 2**-59.5
    """-0x1.555555555553dp-2 0x1.9999999995896p-3 -0x1.24924922aedap-3 0x1.c71c70e6b01acp-4 -0x1.745cf8ee8052ap-4
    0x1.3b111a51e89bap-4 -0x1.10ebc53057151p-4 0x1.df0ff87fca5f5p-5 -0x1.9cd581ae3f7cap-5 0x1.37dbee1706ed3p-5
    -0x1.25767477404b1p-6"""
)
ASIN_SHORT = _exact(  # 2**-31.7
    """0x1.55554c36d36b9p-3 0x1.33388eabfe722p-4 0x1.6cac3b13efdedp-5 0x1.04a661bde74fp-5 0x1.d7f1a057cf109p-7
    0x1.33bbfad9d4ed6p-5"""
)
ASIN_FLOAT64 = _exact(  # 2**-59.8
    """0x1.5555555555578p-3 0x1.333333332df1ep-4 0x1.6db6db722ad16p-5 0x1.f1c71a8be0d3ep-6 0x1.6e8bdfde001dep-6
    0x1.1c49deac0d4ep-6 0x1.ca213305354fcp-7 0x1.757823fab7bc3p-7 0x1.61873c8e15c9ep-7 0x1.e192ad4a4422fp-9
    0x1.64f0650fae7afp-6 -0x1.59dc94c808161p-6 0x1.0bdbfd8bf611p-5"""
)
