package photos

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/citywarden/citywarden"
)

func picture() image.Image {
	m := image.NewRGBA(image.Rect(0, 0, 40, 24))
	for y := range 24 {
		for x := range 40 {
			m.Set(x, y, color.RGBA{uint8(x * 6), uint8(y * 10), 90, 255})
		}
	}
	return m
}

func jpegOf(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, picture(), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func segment(marker byte, body string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(len(body)+2)), body...)
}

// secret stands for what must not stay: a place, a name, a serial number.
const secret = "24.117N 117.613E Li Ming"

// camera is EXIF data with an orientation, in either byte order, and more.
func camera(order binary.AppendByteOrder, orientation uint16) string {
	b := []byte("II*\x00")
	if order == binary.BigEndian {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x010f), 2), uint32(len(secret)))
	b = order.AppendUint32(b, 38)
	b = order.AppendUint32(order.AppendUint16(order.AppendUint16(b, 0x0112), 3), 1)
	b = order.AppendUint16(order.AppendUint16(b, orientation), 0)
	b = order.AppendUint32(b, 0)
	return string(b) + secret
}

func TestJPEG(t *testing.T) {
	plain := jpegOf(t)
	for _, c := range []struct {
		name   string
		insert []byte
		after  string
		turned int
	}{
		{"bare", nil, "", 1},
		{"exif", segment(app1, "Exif\x00\x00"+camera(binary.BigEndian, 6)), "", 6},
		{"exif of the other order", segment(app1, "Exif\x00\x00"+camera(binary.LittleEndian, 8)), "", 8},
		{"orientation that is none", segment(app1, "Exif\x00\x00"+camera(binary.LittleEndian, 9)), "", 1},
		{"xmp, comment, maker's note", append(append(segment(app1, "http://ns.adobe.com/xap/1.0/\x00"+secret), segment(com, secret)...), segment(app0+11, secret)...), "", 1},
		{"thumbnail in JFIF", segment(app0, "JFIF\x00\x01\x02\x00\x00\x01\x00\x01\x02\x04"+secret), "", 1},
		{"a film behind the photo", nil, secret, 1},
		{"fill bytes", append([]byte{0xff, 0xff}, segment(com, secret)...), "", 1},
	} {
		b := append(append(append(bytes.Clone(plain[:2]), c.insert...), plain[2:]...), c.after...)
		p, clean, err := Clean(b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if bytes.Contains(clean, []byte(secret)) || p.Type != "image/jpeg" || p.Width != 40 || p.Height != 24 {
			t.Errorf("%s: %+v, %q stays: %v", c.name, p, secret, bytes.Contains(clean, []byte(secret)))
		}
		got, err := jpeg.Decode(bytes.NewReader(clean))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want, err := jpeg.Decode(bytes.NewReader(plain))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.(*image.YCbCr).Y, want.(*image.YCbCr).Y) {
			t.Errorf("%s: it is another picture", c.name)
		}
		if o := turnOf(clean); o != c.turned {
			t.Errorf("%s: orientation %d, want %d", c.name, o, c.turned)
		}
		if _, again, err := Clean(clean); err != nil || !bytes.Equal(again, clean) {
			t.Errorf("%s: cleaning it twice makes another file (%v)", c.name, err)
		}
	}
}

// turnOf returns the orientation that a cleaned JPEG states.
func turnOf(b []byte) int {
	i := bytes.Index(b, []byte("Exif\x00\x00"))
	if i < 0 {
		return 1
	}
	return orientation(b[i+6:])
}

func chunk(kind, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = append(append(b, kind...), body...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

func TestPNG(t *testing.T) {
	var b bytes.Buffer
	if err := png.Encode(&b, picture()); err != nil {
		t.Fatal(err)
	}
	plain := b.Bytes()
	const head = 8 + 25 // signature and IHDR
	more := append(chunk("tEXt", "Comment\x00"+secret), chunk("eXIf", camera(binary.BigEndian, 3))...)
	p, clean, err := Clean(append(append(append(bytes.Clone(plain[:head]), more...), plain[head:]...), secret...))
	if err != nil || p.Type != "image/png" || p.Width != 40 || p.Height != 24 {
		t.Fatalf("%+v, %v", p, err)
	}
	if bytes.Contains(clean, []byte(secret)) {
		t.Error("what the camera wrote is still there")
	}
	if i := bytes.Index(clean, []byte("eXIf")); i < 0 || orientation(clean[i+4:]) != 3 {
		t.Error("the orientation is lost")
	}
	if _, err := png.Decode(bytes.NewReader(clean)); err != nil {
		t.Error(err)
	}
	if _, same, err := Clean(plain); err != nil || !bytes.Equal(same, plain) {
		t.Errorf("a PNG with nothing in it was changed (%v)", err)
	}
	broken := bytes.Clone(plain)
	broken[head+10] ^= 1
	if _, _, err := Clean(broken); citywarden.CodeOf(err) != citywarden.CodeInvalid {
		t.Errorf("a wrong checksum: %v", err)
	}
}

// webp returns a WebP file of the chunks, which need not hold a real picture:
// Clean reads the container only.
func webp(chunks ...string) []byte {
	var body []byte
	for i := 0; i < len(chunks); i += 2 {
		body = binary.LittleEndian.AppendUint32(append(body, chunks[i]...), uint32(len(chunks[i+1])))
		body = append(body, chunks[i+1]...)
		if len(chunks[i+1])%2 == 1 {
			body = append(body, 0)
		}
	}
	b := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body)+4))
	return append(append(b, "WEBP"...), body...)
}

func TestWebP(t *testing.T) {
	lossy := "\x30\x01\x00\x9d\x01\x2a\x28\x00\x18\x00data"
	extended := "\x0c\x00\x00\x00\x27\x00\x00\x17\x00\x00"
	for _, c := range []struct {
		name string
		in   []byte
		want []byte
	}{
		{"lossy", webp("VP8 ", lossy), webp("VP8 ", lossy)},
		{"lossless", webp("VP8L", "\x2f\x27\xc0\x05\x00rest"), webp("VP8L", "\x2f\x27\xc0\x05\x00rest")},
		{"behind its end", append(webp("VP8 ", lossy), secret...), webp("VP8 ", lossy)},
		{"with metadata", webp("VP8X", extended, "VP8 ", lossy, "EXIF", camera(binary.LittleEndian, 1), "XMP ", secret, "ABCD", secret),
			webp("VP8X", "\x00\x00\x00\x00\x27\x00\x00\x17\x00\x00", "VP8 ", lossy)},
		{"turned", webp("VP8X", extended, "VP8 ", lossy, "EXIF", "Exif\x00\x00"+camera(binary.LittleEndian, 6)),
			webp("VP8X", "\x08\x00\x00\x00\x27\x00\x00\x17\x00\x00", "VP8 ", lossy, "EXIF", string(exif(6)))},
	} {
		p, clean, err := Clean(c.in)
		if err != nil || !bytes.Equal(clean, c.want) || p.Type != "image/webp" || p.Width != 40 || p.Height != 24 {
			t.Errorf("%s: %+v, %v\n%q\nwant\n%q", c.name, p, err, clean, c.want)
		}
	}
}

func TestWhatIsNoPhoto(t *testing.T) {
	plain := jpegOf(t)
	huge := bytes.Clone(plain)
	i := bytes.Index(huge, []byte{0xff, 0xc0})
	copy(huge[i+5:], []byte{0xff, 0xff, 0xff, 0xff})
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"a page":            []byte("<html><script>alert(1)</script>"),
		"a drawing":         []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`),
		"a GIF":             []byte("GIF89a\x01\x00\x01\x00"),
		"half a JPEG":       plain[:len(plain)/2],
		"a JPEG's head":     plain[:3],
		"no scan":           append(bytes.Clone(plain[:2]), 0xff, eoi),
		"65535 x 65535":     huge,
		"an animation":      webp("VP8X", "\x02\x00\x00\x00\x27\x00\x00\x17\x00\x00"),
		"no picture inside": webp("VP8X", "\x00\x00\x00\x00\x27\x00\x00\x17\x00\x00"),
		"more than 8 MiB":   append(bytes.Clone(plain), make([]byte, citywarden.MaxPhoto)...),
	} {
		if p, _, err := Clean(b); citywarden.CodeOf(err) != citywarden.CodeInvalid {
			t.Errorf("%s was taken as %+v (%v)", name, p, err)
		}
	}
}

func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "photos")
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	plain := jpegOf(t)
	p, err := d.Keep(plain)
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.Keep(append(bytes.Clone(plain), secret...))
	if err != nil || again != p {
		t.Errorf("the same photo is %+v (%v), want %+v", again, err, p)
	}
	got, err := d.Read(p.ID)
	if err != nil || len(got) != p.Bytes {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, p.Bytes)
	}
	for _, id := range []string{"", "..", strings.Repeat("0", 64), "../" + string(p.ID), strings.ToUpper(string(p.ID))} {
		if _, err := d.Read(citywarden.PhotoID(id)); citywarden.CodeOf(err) != citywarden.CodeNotFound {
			t.Errorf("Read(%q): %v, want not_found", id, err)
		}
	}
	// What a crash left is gone at the next start, what was kept is not.
	if err := os.WriteFile(filepath.Join(dir, Partial+"1"), plain[:9], 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, Partial+"1")); !os.IsNotExist(err) {
		t.Errorf("half a photo stays: %v", err)
	}
	if _, err := d.Read(p.ID); err != nil {
		t.Error(err)
	}
}

func FuzzClean(f *testing.F) {
	f.Add(jpegOf(f))
	f.Add([]byte(pngHead))
	f.Add(webp("VP8X", "\x0c\x00\x00\x00\x27\x00\x00\x17\x00\x00", "VP8 ", "\x30\x01\x00\x9d\x01\x2a\x28\x00\x18\x00data"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, clean, err := Clean(b)
		if err != nil {
			return
		}
		q, again, err := Clean(clean)
		if err != nil || q != p || !bytes.Equal(again, clean) {
			t.Errorf("what was cleaned is %+v, cleaned again %+v (%v)", p, q, err)
		}
	})
}

// TestOpenAnyPath: a path is no pattern, whatever it looks like.
func TestOpenAnyPath(t *testing.T) {
	for _, name := range []string{"c[1", "c[1]"} {
		path := filepath.Join(t.TempDir(), name, "photos")
		left := filepath.Join(path, Partial+"1")
		if _, err := Open(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(left); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", left, err)
		}
	}
}
