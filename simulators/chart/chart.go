// Package chart draws curves over time as SVG, one below the other: what a
// simulator did, to look at.
package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"time"
)

// Chart is a picture with a panel for each curve, over one axis of time.
type Chart struct {
	Title  string
	Curves []Curve
	Spans  []Span // shaded in every panel
}

// Curve is one quantity.
type Curve struct {
	Name, Unit string
	Step       bool // it keeps its value until the next point
	Points     []Point
}

// Point is a value at a moment.
type Point struct {
	At time.Time
	Y  float64
}

// Span is a time in which something happened.
type Span struct {
	Name     string
	From, To time.Time
}

// The measures of the picture, in pixels.
const (
	width, left, right = 900, 70, 20
	head, panel, gap   = 40, 130, 34
)

// Write writes c as SVG. The same chart gives the same bytes.
func (c *Chart) Write(w io.Writer) error {
	from, to := c.ends()
	span := to.Sub(from).Seconds()
	if span <= 0 {
		return fmt.Errorf("chart %q: nothing to draw", c.Title)
	}
	height := head + len(c.Curves)*(panel+gap) + 20
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="16">%s</text>`+"\n", left, escape(c.Title))
	x := func(t time.Time) float64 {
		return left + math.Min(1, math.Max(0, t.Sub(from).Seconds()/span))*(width-left-right)
	}
	for i := range c.Curves {
		top := float64(head + i*(panel+gap) + 14)
		c.draw(&b, &c.Curves[i], top, x)
		for at := from.Truncate(tick(to.Sub(from))); !at.After(to); at = at.Add(tick(to.Sub(from))) {
			if at.Before(from) {
				continue
			}
			fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#999"/>`+"\n", x(at), top+panel, x(at), top+panel+4)
			if i == len(c.Curves)-1 {
				fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" fill="#555">%s</text>`+"\n", x(at), top+panel+18, at.Format("15:04:05"))
			}
		}
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

// ends returns the first and the last moment of all curves.
func (c *Chart) ends() (from, to time.Time) {
	for _, k := range c.Curves {
		for _, p := range k.Points {
			if from.IsZero() || p.At.Before(from) {
				from = p.At
			}
			if p.At.After(to) {
				to = p.At
			}
		}
	}
	return from, to
}

// draw draws one panel.
func (c *Chart) draw(b *bytes.Buffer, k *Curve, top float64, x func(time.Time) float64) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, p := range k.Points {
		low, high = math.Min(low, p.Y), math.Max(high, p.Y)
	}
	step := nice((high - low) / 4)
	low, high = math.Floor(low/step)*step, math.Ceil(high/step)*step
	if low == high {
		high += step
	}
	y := func(v float64) float64 { return top + panel*(high-v)/(high-low) }
	for _, s := range c.Spans {
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="#fde68a" fill-opacity="0.6"><title>%s</title></rect>`+"\n", x(s.From), top, math.Max(1, x(s.To)-x(s.From)), panel, escape(s.Name))
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="#92400e" font-size="10">%s</text>`+"\n", x(s.From)+2, top+10, escape(s.Name))
	}
	name := k.Name
	if k.Unit != "" {
		name += ", " + k.Unit
	}
	fmt.Fprintf(b, `<text x="%d" y="%.1f" fill="#111">%s</text>`+"\n", left, top-4, escape(name))
	for n := 0; ; n++ {
		v := low + float64(n)*step
		if v > high+step/2 {
			break
		}
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#e5e7eb"/>`+"\n", left, y(v), width-right, y(v))
		fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end" fill="#555">%.*f</text>`+"\n", left-6, y(v)+4, digits(step), v)
	}
	b.WriteString(`<polyline fill="none" stroke="#2563eb" stroke-width="1.5" points="`)
	for i, p := range k.Points {
		if k.Step && i > 0 {
			fmt.Fprintf(b, "%.1f,%.1f ", x(p.At), y(k.Points[i-1].Y))
		}
		fmt.Fprintf(b, "%.1f,%.1f ", x(p.At), y(p.Y))
	}
	b.WriteString(`"/>` + "\n")
}

// nice returns a step of 1, 2 or 5 times a power of ten that is at least v.
func nice(v float64) float64 {
	if !(v > 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, k := range [...]float64{1, 2, 5} {
		if k*power >= v*(1-1e-9) {
			return k * power
		}
	}
	return 10 * power
}

// digits returns how many decimals the multiples of step need.
func digits(step float64) int { return max(0, -int(math.Floor(math.Log10(step)+1e-9))) }

// tick returns the distance of the marks of a time axis: at most ten of them.
func tick(span time.Duration) time.Duration {
	steps := [...]time.Duration{
		time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 24 * time.Hour,
	}
	for _, s := range steps {
		if span <= 10*s {
			return s
		}
	}
	return 7 * 24 * time.Hour
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a bytes.Buffer takes everything
	return b.String()
}
