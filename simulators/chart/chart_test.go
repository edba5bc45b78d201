package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func example() *Chart {
	c := &Chart{Title: "a < b & c", Curves: []Curve{{Name: "pressure", Unit: "bar"}, {Name: "button", Step: true}}, Spans: []Span{{"burst", noon.Add(time.Minute), noon.Add(3 * time.Minute)}}}
	for i := range 20 {
		at := noon.Add(time.Duration(i) * 15 * time.Second)
		c.Curves[0].Points = append(c.Curves[0].Points, Point{at, 3 - float64(i%7)/10})
		c.Curves[1].Points = append(c.Curves[1].Points, Point{at, float64(i / 10)})
	}
	return c
}

func TestSVG(t *testing.T) {
	var one, two bytes.Buffer
	if err := example().WriteSVG(&one); err != nil {
		t.Fatal(err)
	}
	if err := example().WriteSVG(&two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same chart, other bytes", err)
	}
	elements, curves := map[string]int{}, 0
	for d := xml.NewDecoder(&two); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			elements[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "points" {
					switch n := len(strings.Fields(a.Value)); n {
					case 2: // a line of the axes
					case 20, 39:
						curves++
					default:
						t.Errorf("a curve of %d points", n)
					}
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "-") {
						t.Errorf("a curve leaves the picture: %s", a.Value)
					}
				}
			}
		}
	}
	if curves != 2 || elements["rect"] != 3 {
		t.Errorf("%d curves, elements: %v", curves, elements)
	}
	for _, want := range []string{"a &lt; b &amp; c", "pressure, bar", ">12:01:00<", ">2.4<", "burst"} {
		if !strings.Contains(one.String(), want) {
			t.Errorf("no %s in it", want)
		}
	}
}

// TestPNG looks at the pixels: the curve is where its values are, the shaded time
// is shaded, and there is text.
func TestPNG(t *testing.T) {
	var one, two bytes.Buffer
	if err := example().WritePNG(&one); err != nil {
		t.Fatal(err)
	}
	if err := example().WritePNG(&two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same chart, other bytes", err)
	}
	img, err := png.Decode(&one)
	if err != nil {
		t.Fatal(err)
	}
	if s := img.Bounds().Size(); s.X != width*pixels || s.Y != (head+2*(panel+gap)+20)*pixels {
		t.Errorf("the picture has %v pixels", s)
	}
	is := func(x, y float64, c ink) bool {
		r, g, b, _ := img.At(int(x*pixels), int(y*pixels)).RGBA()
		return ink(r>>8<<16|g>>8<<8|b>>8) == c
	}
	const top = head + 14 // of the first panel, whose axis ends at 3
	if !is(leftEdge, top, blue) || !is(leftEdge+(rightEdge-leftEdge)*7/19.0, top, blue) {
		t.Error("the curve is not at 3 where it begins and after seven points")
	}
	if !is(leftEdge+(rightEdge-leftEdge)*8/19.0, top+panel-20, yellow) || is(rightEdge-40, top+panel-20, yellow) {
		t.Error("the burst is not shaded, or what comes after it is")
	}
	inked := func(x0, y0, x1, y1 int) bool {
		for y := y0 * pixels; y < y1*pixels; y++ {
			for x := x0 * pixels; x < x1*pixels; x++ {
				if r, _, _, _ := img.At(x, y).RGBA(); r < 0x8000 {
					return true
				}
			}
		}
		return false
	}
	if !inked(leftEdge, 10, leftEdge+80, 26) || !inked(20, top-8, leftEdge-5, top+8) || inked(leftEdge+400, 10, rightEdge, 26) {
		t.Error("the title or the axis is not there, or something is beside it")
	}
}

func TestNothingToDraw(t *testing.T) {
	if err := (&Chart{}).WriteSVG(io.Discard); err == nil {
		t.Error("nothing was drawn as SVG without a word")
	}
	if err := (&Chart{}).WritePNG(io.Discard); err == nil {
		t.Error("nothing was drawn as PNG without a word")
	}
	half := example()
	half.Curves[1].Points = nil
	if err := half.WritePNG(io.Discard); err == nil {
		t.Error("a curve without points was drawn")
	}
}

func TestNice(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.03: 0.05, 1: 1, 1.2: 2, 30: 50, 70: 100} {
		if got := nice(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("nice(%g) = %g, want %g", v, got, want)
		}
	}
	if digits(0.05) != 2 || digits(0.1) != 1 || digits(20) != 0 {
		t.Errorf("digits: %d %d %d", digits(0.05), digits(0.1), digits(20))
	}
}
