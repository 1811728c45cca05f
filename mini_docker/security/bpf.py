# Exported from notebooks/09b_seccomp.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09b_seccomp.ipynb#bpf-module
"""Classic BPF, the language of seccomp filters: an assembler that begins at a program's end."""

from __future__ import annotations

import struct

# linux/bpf_common.h
LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS: a 32-bit word of the input into the accumulator
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K: accumulator &= k
JUMP = 0x05  # BPF_JMP | BPF_JA: k instructions further
IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K: accumulator == k
IF_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K: accumulator > k, unsigned
IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K: accumulator >= k, unsigned
RETURN = 0x06  # BPF_RET | BPF_K: the verdict is k
MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
FARTHEST = 255  # of a conditional jump: its two distances have 8 bits each


# %% notebooks/09b_seccomp.ipynb#program
class Program:
    """A program that grows at its front.

    Classic BPF jumps forward only. Written from its last instruction to its first, all that a jump may
    lead to is there already, and its distance known. So each method puts an instruction before the
    others and returns its label: how many instructions there are from it to the end.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.backwards: list[bytes] = []
        self.returns: dict[int, int] = {}

    def _put(self, code: int, if_true: int, if_false: int, k: int) -> int:
        self.backwards.append(struct.pack("=HBBI", code, if_true, if_false, k))
        return len(self.backwards)

    def load(self, offset: int) -> int:
        """Load the word at `offset` bytes of struct seccomp_data; what was put last comes next."""
        return self._put(LOAD, 0, 0, offset)

    def mask(self, bits: int) -> int:
        """Keep these bits of the accumulator; what was put last comes next."""
        return self._put(AND, 0, 0, bits)

    def verdict(self, value: int) -> int:
        """Return the label of an end with this verdict: one near enough, or a new one."""
        label = self.returns.get(value, -FARTHEST)
        if len(self.backwards) - label >= FARTHEST - 1:  # one less: a far jump may come in between
            label = self.returns[value] = self._put(RETURN, 0, 0, value)
        return label

    def jump(self, test: int, k: int, then: int, otherwise: int) -> int:
        """Compare the accumulator with `k` (IF_...) and go on at label `then`, or at `otherwise`."""
        then, otherwise = self._near(then, 1), self._near(otherwise, 0)
        here = len(self.backwards)
        return self._put(test, here - then, here - otherwise, k)

    def _near(self, label: int, spare: int) -> int:
        """Return `label`, or that of a jump to it, where it is too far for a conditional one."""
        distance = len(self.backwards) - label
        return label if distance <= FARTHEST - spare else self._put(JUMP, 0, 0, distance)

    def assemble(self) -> bytes:
        """Return the program as the kernel takes it. Raises ValueError if it is too long."""
        if len(self.backwards) > MOST_INSTRUCTIONS:
            count = len(self.backwards)
            raise ValueError(
                f"linux.seccomp: {count} instructions; the kernel takes {MOST_INSTRUCTIONS}"
            )
        return b"".join(reversed(self.backwards))
