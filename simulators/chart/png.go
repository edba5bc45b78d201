package chart

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// pixels is how many pixels of a PNG there are to one of the SVG.
const pixels = 2

// WritePNG writes c as PNG. The same chart gives the same bytes.
func (c *Chart) WritePNG(w io.Writer) error {
	f, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return fmt.Errorf("the font of charts: %w", err)
	}
	p := &raster{font: f, faces: map[float64]font.Face{}}
	if err := c.paint(p); err != nil {
		return err
	}
	if p.err != nil {
		return fmt.Errorf("the font of charts: %w", p.err)
	}
	return png.Encode(w, p.img)
}

// raster is a canvas of pixels.
type raster struct {
	img   *image.RGBA
	font  *opentype.Font
	faces map[float64]font.Face // by size
	err   error                 // the first
}

func (p *raster) begin(width, height int) {
	p.img = image.NewRGBA(image.Rect(0, 0, width*pixels, height*pixels))
	draw.Draw(p.img, p.img.Rect, image.White, image.Point{}, draw.Src)
}

func (p *raster) span(x, y, width, height float64, _ string) {
	at := func(v float64) int { return int(math.Round(v * pixels)) }
	draw.Draw(p.img, image.Rect(at(x), at(y), at(x+width), at(y+height)), paint(yellow), image.Point{}, draw.Src)
}

func (p *raster) text(x, y, size float64, at anchor, c ink, s string) {
	face := p.faces[size]
	if face == nil {
		var err error
		if face, err = opentype.NewFace(p.font, &opentype.FaceOptions{Size: size * pixels, DPI: 72, Hinting: font.HintingFull}); err != nil {
			p.err = err
			return
		}
		p.faces[size] = face
	}
	d := font.Drawer{Dst: p.img, Src: paint(c), Face: face, Dot: fixed.Point26_6{X: fixed.Int26_6(x * pixels * 64), Y: fixed.Int26_6(y * pixels * 64)}}
	d.Dot.X -= d.MeasureString(s) * fixed.Int26_6(at) / 2
	d.DrawString(s)
}

// line fills a rectangle around each piece. All go round the same way, so that
// where they overlap they do not cancel; each is longer by half of its width, so
// that there is no gap where the direction changes.
func (p *raster) line(points []point, width float64, c ink) {
	half := width * pixels / 2
	low, high := points[0], points[0]
	for _, q := range points {
		low = point{math.Min(low.x, q.x), math.Min(low.y, q.y)}
		high = point{math.Max(high.x, q.x), math.Max(high.y, q.y)}
	}
	edge := int(half) + 2
	box := image.Rect(int(low.x*pixels)-edge, int(low.y*pixels)-edge, int(high.x*pixels)+edge, int(high.y*pixels)+edge).Intersect(p.img.Rect)
	r := vector.NewRasterizer(box.Dx(), box.Dy())
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		ax, ay := a.x*pixels-float64(box.Min.X), a.y*pixels-float64(box.Min.Y)
		bx, by := b.x*pixels-float64(box.Min.X), b.y*pixels-float64(box.Min.Y)
		n := math.Hypot(bx-ax, by-ay)
		if n == 0 {
			continue
		}
		dx, dy := (bx-ax)/n*half, (by-ay)/n*half
		r.MoveTo(float32(ax-dx-dy), float32(ay-dy+dx))
		r.LineTo(float32(bx+dx-dy), float32(by+dy+dx))
		r.LineTo(float32(bx+dx+dy), float32(by+dy-dx))
		r.LineTo(float32(ax-dx+dy), float32(ay-dy-dx))
		r.ClosePath()
	}
	r.Draw(p.img, box, paint(c), image.Point{})
}

func paint(c ink) image.Image {
	return image.NewUniform(color.RGBA{uint8(c >> 16), uint8(c >> 8), uint8(c), 0xff})
}
