package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
)

// WriteSVG writes c as SVG. The same chart gives the same bytes.
func (c *Chart) WriteSVG(w io.Writer) error {
	p := &svg{}
	if err := c.paint(p); err != nil {
		return err
	}
	p.b.WriteString("</svg>\n")
	_, err := w.Write(p.b.Bytes())
	return err
}

// svg is a canvas of SVG elements.
type svg struct{ b bytes.Buffer }

func (p *svg) begin(width, height int) {
	fmt.Fprintf(&p.b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif">`+"\n", width, height, width, height)
	fmt.Fprintf(&p.b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
}

func (p *svg) span(x, y, width, height float64, name string) {
	fmt.Fprintf(&p.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`+"\n", x, y, width, height, hex(yellow), escape(name))
}

func (p *svg) text(x, y, size float64, at anchor, c ink, s string) {
	fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f" font-size="%g" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, size, [...]string{"start", "middle", "end"}[at], hex(c), escape(s))
}

func (p *svg) line(points []point, width float64, c ink) {
	fmt.Fprintf(&p.b, `<polyline fill="none" stroke="%s" stroke-width="%g" points="`, hex(c), width)
	for i, q := range points {
		if i > 0 {
			p.b.WriteByte(' ')
		}
		fmt.Fprintf(&p.b, "%.1f,%.1f", q.x, q.y)
	}
	p.b.WriteString(`"/>` + "\n")
}

func hex(c ink) string { return fmt.Sprintf("#%06x", uint32(c)) }

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a bytes.Buffer takes everything
	return b.String()
}
