# Exported from notebooks/03b_nat.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/03b_nat.ipynb#nft
"""The packet filter: whole transactions in nft's own words by libnftables, small questions by netlink."""

from __future__ import annotations

import errno

from mini_docker.linux.netlink import Message, Netlink, attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL

LIBRARY = "libnftables.so.1"
REMEDY = "remedy: install the package libnftables1 (Debian, Ubuntu) or nftables (elsewhere)"
NFT_CTX_OUTPUT_HANDLE = 1 << 3  # nftables/libnftables.h

# linux/netlink.h, linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_NETFILTER = 12
NFPROTO_IPV4 = 2
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_GETTABLE = 1
NFTA_TABLE_NAME = 1


def run(commands: str, handles: bool = False) -> str:
    """Run nft `commands` as one transaction, all or nothing; return what a listing printed, nft(8).

    `handles` adds to each listed rule the number by which it can be deleted (nft -a). Raises ValueError
    with nft's words for commands that it cannot read or that the kernel refuses, OSError(ENOPKG) where
    the library is not installed. Source: libnftables(3).
    """
    nft = load()
    context = nft.nft_ctx_new(0)
    try:
        nft.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_HANDLE if handles else 0)
        nft.nft_ctx_buffer_output(context)
        nft.nft_ctx_buffer_error(context)
        if nft.nft_run_cmd_from_buffer(context, commands.encode()):
            raise ValueError(nft.nft_ctx_get_error_buffer(context).decode().strip())
        output: bytes = nft.nft_ctx_get_output_buffer(context)
        return output.decode()
    finally:
        nft.nft_ctx_free(context)


def load(library: str = LIBRARY) -> CDLL:
    """Load libnftables and declare the functions that we use. Raises OSError(ENOPKG)."""
    from ctypes import CDLL, c_char_p, c_int, c_uint, c_void_p

    try:
        nft = CDLL(library)
    except OSError as error:
        raise OSError(errno.ENOPKG, f"{library} cannot be loaded; {REMEDY}") from error
    functions = (
        ("nft_ctx_new", c_void_p, [c_uint]),
        ("nft_ctx_free", None, [c_void_p]),
        ("nft_ctx_output_set_flags", None, [c_void_p, c_uint]),
        ("nft_ctx_buffer_output", c_int, [c_void_p]),
        ("nft_ctx_buffer_error", c_int, [c_void_p]),
        ("nft_ctx_get_output_buffer", c_char_p, [c_void_p]),
        ("nft_ctx_get_error_buffer", c_char_p, [c_void_p]),
        ("nft_run_cmd_from_buffer", c_int, [c_void_p, c_char_p]),
    )
    for name, result, arguments in functions:
        function = getattr(nft, name)
        # else ctypes cuts pointers to 32 bits
        function.restype, function.argtypes = result, arguments
    return nft


def has_table(name: str, family: int = NFPROTO_IPV4) -> bool:
    """Say whether a table is there: one question to the kernel, without the library. Raises OSError."""
    body = bytes([family, 0, 0, 0]) + attribute(NFTA_TABLE_NAME, name)  # struct nfgenmsg
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            netlink.request(Message(f"find table '{name}'", kind, 0, body))
    except FileNotFoundError:
        return False
    return True
