package photos

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/citywarden/citywarden"
)

// Clean returns what a photo is, and its bytes without anything but the picture.
// The picture itself is not touched. JPEG, PNG and WebP are known by their
// bytes; CodeInvalid for anything else, and for what is broken or too large.
func Clean(b []byte) (citywarden.Photo, []byte, error) {
	var p citywarden.Photo
	if len(b) > citywarden.MaxPhoto {
		return p, nil, citywarden.Errorf(citywarden.CodeInvalid, "the photo has %d bytes; at most %d (8 MiB), make it smaller", len(b), citywarden.MaxPhoto)
	}
	var clean []byte
	var ok bool
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		p.Type = "image/jpeg"
		clean, p.Width, p.Height, ok = cleanJPEG(b)
	case bytes.HasPrefix(b, []byte(pngHead)):
		p.Type = "image/png"
		clean, p.Width, p.Height, ok = cleanPNG(b)
	case len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		p.Type = "image/webp"
		clean, p.Width, p.Height, ok = cleanWebP(b)
	default:
		return p, nil, citywarden.Errorf(citywarden.CodeInvalid, "that is no photo; send JPEG, PNG or WebP")
	}
	if !ok || p.Width <= 0 || p.Height <= 0 {
		return p, nil, citywarden.Errorf(citywarden.CodeInvalid, "the photo is broken: it begins like %s but does not go on so", p.Type)
	}
	if p.Width > MaxPixels/p.Height {
		return p, nil, citywarden.Errorf(citywarden.CodeInvalid, "the photo has %d x %d pixels; at most %d, make it smaller", p.Width, p.Height, MaxPixels)
	}
	return p, clean, nil
}

// Markers of JPEG (ITU-T T.81, table B.1).
const (
	soi, eoi, sos, com, app0, app1, app2, app14, app15 = 0xd8, 0xd9, 0xda, 0xfe, 0xe0, 0xe1, 0xe2, 0xee, 0xef
)

// cleanJPEG drops comments and all application segments but those that say how
// the colours are meant: JFIF, ICC and Adobe. It ends at the end of the image.
func cleanJPEG(b []byte) (out []byte, width, height int, ok bool) {
	out = append(out, 0xff, soi)
	at, turned, scanned := 2, 1, false
	var keep [][]byte
	flush := func() {
		out = append(out, turnedJPEG(turned)...)
		for _, s := range keep {
			out = append(out, s...)
		}
		keep = nil
	}
	for at+2 <= len(b) {
		if b[at] != 0xff {
			return nil, 0, 0, false
		}
		m := b[at+1]
		switch {
		case m == 0xff: // fill byte
			at++
			continue
		case m == eoi:
			return append(out, 0xff, eoi), width, height, scanned
		case m == soi || m == 0 || m == 1 || m >= 0xd0 && m <= 0xd7:
			return nil, 0, 0, false
		}
		if at+4 > len(b) {
			return nil, 0, 0, false
		}
		n := int(binary.BigEndian.Uint16(b[at+2:]))
		if n < 2 || at+2+n > len(b) {
			return nil, 0, 0, false
		}
		segment, body := b[at:at+2+n], b[at+4:at+2+n]
		at += 2 + n
		switch {
		case m == app1 && bytes.HasPrefix(body, []byte("Exif\x00\x00")):
			turned = orientation(body[6:])
		case m == app0 && bytes.HasPrefix(body, []byte("JFIF\x00")) && len(body) >= 14:
			keep = append(keep, jfif(segment))
		case m == app2 && bytes.HasPrefix(body, []byte("ICC_PROFILE\x00")), m == app14 && bytes.HasPrefix(body, []byte("Adobe")):
			keep = append(keep, segment)
		case m == com, m >= app0 && m <= app15:
		case m == sos:
			if !scanned {
				flush()
			}
			scanned = true
			out = append(out, segment...)
			end := scanEnd(b, at)
			out = append(out, b[at:end]...)
			at = end
		default:
			if m >= 0xc0 && m <= 0xcf && m != 0xc4 && m != 0xc8 && m != 0xcc { // start of frame
				if len(body) < 6 || width != 0 {
					return nil, 0, 0, false
				}
				height, width = int(binary.BigEndian.Uint16(body[1:])), int(binary.BigEndian.Uint16(body[3:]))
			}
			if scanned {
				out = append(out, segment...)
			} else {
				keep = append(keep, segment)
			}
		}
	}
	return nil, 0, 0, false
}

// jfif returns an APP0 segment without the thumbnail that may follow in it: 18
// bytes with marker and length.
func jfif(segment []byte) []byte {
	s := slices.Clone(segment[:18])
	s[3], s[2] = 16, 0
	s[16], s[17] = 0, 0
	return s
}

// scanEnd returns where the next marker after the entropy-coded data at i stands.
func scanEnd(b []byte, i int) int {
	for ; i+1 < len(b); i++ {
		if b[i] == 0xff && b[i+1] != 0 && (b[i+1] < 0xd0 || b[i+1] > 0xd7) {
			return i
		}
	}
	return len(b)
}

func turnedJPEG(o int) []byte {
	if o == 1 {
		return nil
	}
	body := append([]byte("Exif\x00\x00"), exif(o)...)
	return append(binary.BigEndian.AppendUint16([]byte{0xff, app1}, uint16(len(body)+2)), body...)
}

// orientation returns the tag of that name (1 to 8) of EXIF data (a TIFF file);
// 1, upright, when there is none.
func orientation(b []byte) int {
	if len(b) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	if string(b[:2]) == "MM" {
		order = binary.BigEndian
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 1
	}
	n := int64(order.Uint16(b[at:]))
	for e := at + 2; n > 0 && e+12 <= int64(len(b)); e, n = e+12, n-1 {
		if order.Uint16(b[e:]) == 0x0112 {
			if o := int(order.Uint16(b[e+8:])); o >= 1 && o <= 8 {
				return o
			}
		}
	}
	return 1
}

// exif returns EXIF data that says the orientation and nothing else.
func exif(orientation int) []byte {
	return []byte{'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, byte(orientation), 0, 0, 0, 0, 0, 0, 0}
}

const pngHead = "\x89PNG\r\n\x1a\n"

// pngChunks are the chunks that stay: the picture, its colours and its density.
// Those of an animation and all that hold text do not.
var pngChunks = []string{"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "cHRM", "gAMA", "iCCP", "sBIT", "sRGB", "cICP", "pHYs"}

func cleanPNG(b []byte) (out []byte, width, height int, ok bool) {
	out = append(out, pngHead...)
	turned, data := 1, false
	for at := len(pngHead); at+12 <= len(b); {
		n := int64(binary.BigEndian.Uint32(b[at:]))
		if int64(at)+12+n > int64(len(b)) {
			return nil, 0, 0, false
		}
		kind, body, chunk := string(b[at+4:at+8]), b[at+8:at+8+int(n)], b[at:at+12+int(n)]
		if crc32.ChecksumIEEE(chunk[4:8+n]) != binary.BigEndian.Uint32(chunk[8+n:]) || (at == len(pngHead)) != (kind == "IHDR") {
			return nil, 0, 0, false
		}
		at += len(chunk)
		switch {
		case kind == "IHDR" && n == 13:
			width, height = int(binary.BigEndian.Uint32(body)), int(binary.BigEndian.Uint32(body[4:]))
		case kind == "eXIf":
			turned = orientation(body)
		case kind == "IDAT":
			data = true
		case kind == "IEND" && turned != 1:
			out = appendPNG(out, "eXIf", exif(turned))
		}
		if slices.Contains(pngChunks, kind) {
			out = append(out, chunk...)
		}
		if kind == "IEND" {
			return out, width, height, data
		}
	}
	return nil, 0, 0, false
}

func appendPNG(out []byte, kind string, body []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	from := len(out)
	out = append(append(out, kind...), body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[from:]))
}

// Flags of the VP8X chunk (WebP container).
const (
	webpAnimation, webpXMP, webpEXIF = 1 << 1, 1 << 2, 1 << 3
)

// cleanWebP drops EXIF and XMP. An animation is no photo.
func cleanWebP(b []byte) (out []byte, width, height int, ok bool) {
	total := int64(binary.LittleEndian.Uint32(b[4:])) + 8
	if total > int64(len(b)) || total < 12 {
		return nil, 0, 0, false
	}
	b = b[:total]
	out = append(out, b[:12]...)
	turned, extended := 1, -1
	for at := 12; at+8 <= len(b); {
		n := int64(binary.LittleEndian.Uint32(b[at+4:]))
		end := int64(at) + 8 + n + n%2
		if end > int64(len(b)) {
			return nil, 0, 0, false
		}
		kind, body, chunk := string(b[at:at+4]), b[at+8:at+8+int(n)], b[at:end]
		at = int(end)
		switch {
		case kind == "VP8X" && n >= 10:
			if extended >= 0 || ok || body[0]&webpAnimation != 0 {
				return nil, 0, 0, false
			}
			extended = len(out) + 8
			width, height = 1+(int(body[4])|int(body[5])<<8|int(body[6])<<16), 1+(int(body[7])|int(body[8])<<8|int(body[9])<<16)
			out = append(out, chunk...)
			out[extended] &^= webpXMP | webpEXIF
		case kind == "VP8 " && n >= 10 && string(body[3:6]) == "\x9d\x01\x2a":
			if extended < 0 {
				width, height = int(binary.LittleEndian.Uint16(body[6:])&0x3fff), int(binary.LittleEndian.Uint16(body[8:])&0x3fff)
			}
			ok = true
			out = append(out, chunk...)
		case kind == "VP8L" && n >= 5 && body[0] == 0x2f:
			if extended < 0 {
				bits := binary.LittleEndian.Uint32(body[1:])
				width, height = 1+int(bits&0x3fff), 1+int(bits>>14&0x3fff)
			}
			ok = true
			out = append(out, chunk...)
		case kind == "ALPH", kind == "ICCP":
			out = append(out, chunk...)
		case kind == "EXIF":
			turned = orientation(bytes.TrimPrefix(body, []byte("Exif\x00\x00")))
		}
	}
	if ok && turned != 1 && extended >= 0 {
		e := exif(turned)
		out[extended] |= webpEXIF
		out = binary.LittleEndian.AppendUint32(append(out, "EXIF"...), uint32(len(e)))
		out = append(out, e...)
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out, width, height, ok
}
