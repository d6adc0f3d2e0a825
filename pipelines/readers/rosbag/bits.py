"""Read the bits of a unit of H.264 or H.265."""


class Bits:
    """The bits of a unit, without the bytes that prevent start codes; raises IndexError after the last one."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data.replace(b"\0\0\3", b"\0\0"), 0

    def read(self, count: int) -> int:
        """Read an unsigned number of `count` bits."""
        value = 0
        for _ in range(count):
            value = value << 1 | self.data[self.at >> 3] >> (7 - (self.at & 7)) & 1
            self.at += 1
        return value

    def golomb(self) -> int:
        """Read an unsigned number in exponential Golomb code."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def golombs(self, count: int) -> None:
        """Skip `count` numbers in exponential Golomb code."""
        for _ in range(count):
            self.golomb()
