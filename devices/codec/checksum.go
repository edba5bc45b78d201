package codec

import (
	"hash/crc32"
	"maps"
	"math/bits"
	"slices"
)

type checksum struct {
	bits int
	of   func([]byte) uint64
}

// checksums are those that devices have, by the names that they are known by.
var checksums = map[string]checksum{
	"sum8": {8, func(p []byte) uint64 {
		var s byte
		for _, b := range p {
			s += b
		}
		return uint64(s)
	}},
	"xor8": {8, func(p []byte) uint64 {
		var s byte
		for _, b := range p {
			s ^= b
		}
		return uint64(s)
	}},
	"crc8":         {8, func(p []byte) uint64 { return crc(p, 8, 0x07, 0) }},
	"crc16-modbus": {16, func(p []byte) uint64 { return reflected16(p, 0x8005, 0xffff) }},
	"crc16-ccitt":  {16, func(p []byte) uint64 { return crc(p, 16, 0x1021, 0xffff) }},
	"crc16-xmodem": {16, func(p []byte) uint64 { return crc(p, 16, 0x1021, 0) }},
	"crc32":        {32, func(p []byte) uint64 { return uint64(crc32.ChecksumIEEE(p)) }},
}

func checksumNames() []string { return slices.Sorted(maps.Keys(checksums)) }

// crc is a CRC of width bits, the most significant bit first.
func crc(p []byte, width int, poly, sum uint64) uint64 {
	top, mask := uint64(1)<<(width-1), uint64(1)<<width-1
	for _, b := range p {
		sum ^= uint64(b) << (width - 8)
		for range 8 {
			if sum&top != 0 {
				sum = sum<<1 ^ poly
			} else {
				sum <<= 1
			}
		}
	}
	return sum & mask
}

// reflected16 is a CRC of 16 bits, the least significant bit first.
func reflected16(p []byte, poly, sum uint16) uint64 {
	poly = bits.Reverse16(poly)
	for _, b := range p {
		sum ^= uint16(b)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ poly
			} else {
				sum >>= 1
			}
		}
	}
	return uint64(sum)
}
