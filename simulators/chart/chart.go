// Package chart draws curves over time as SVG or PNG, one below the other: what a
// simulator did, to look at.
package chart

import (
	"fmt"
	"math"
	"strconv"
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
	width, leftEdge, rightEdge = 900, 70, 880
	head, panel, gap           = 40, 130, 34
)

// canvas is what a chart is painted on, in pixels from the top left.
type canvas interface {
	begin(width, height int) // once, first
	span(x, y, width, height float64, name string)
	text(x, y, size float64, at anchor, c ink, s string) // y of its base line
	line(points []point, width float64, c ink)           // at least one point
}

type point struct{ x, y float64 }

// anchor says which part of a text is at its x.
type anchor int

const (
	left anchor = iota
	middle
	right
)

// ink is a colour, 0xRRGGBB.
type ink uint32

const (
	black  ink = 0x111111
	grey   ink = 0x555555
	mark   ink = 0x999999
	faint  ink = 0xe5e7eb
	blue   ink = 0x2563eb
	brown  ink = 0x92400e
	yellow ink = 0xfdf0b6
)

// paint paints c.
func (c *Chart) paint(to canvas) error {
	from, until := c.ends()
	span := until.Sub(from)
	if span <= 0 {
		return fmt.Errorf("chart %q: nothing to draw", c.Title)
	}
	for _, k := range c.Curves {
		if len(k.Points) == 0 {
			return fmt.Errorf("chart %q: nothing to draw of %s", c.Title, k.Name)
		}
	}
	to.begin(width, head+len(c.Curves)*(panel+gap)+20)
	to.text(leftEdge, 24, 16, left, black, c.Title)
	x := func(t time.Time) float64 {
		return leftEdge + math.Min(1, math.Max(0, t.Sub(from).Seconds()/span.Seconds()))*(rightEdge-leftEdge)
	}
	for i := range c.Curves {
		top := float64(head + i*(panel+gap) + 14)
		c.panel(to, &c.Curves[i], top, x)
		for at := from.Truncate(tick(span)); !at.After(until); at = at.Add(tick(span)) {
			if at.Before(from) {
				continue
			}
			to.line([]point{{x(at), top + panel}, {x(at), top + panel + 4}}, 1, mark)
			if i == len(c.Curves)-1 {
				to.text(x(at), top+panel+18, 12, middle, grey, at.Format("15:04:05"))
			}
		}
	}
	return nil
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

// panel paints one panel.
func (c *Chart) panel(to canvas, k *Curve, top float64, x func(time.Time) float64) {
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
		to.span(x(s.From), top, math.Max(1, x(s.To)-x(s.From)), panel, s.Name)
		to.text(x(s.From)+2, top+10, 10, left, brown, s.Name)
	}
	name := k.Name
	if k.Unit != "" {
		name += ", " + k.Unit
	}
	to.text(leftEdge, top-4, 12, left, black, name)
	for n := 0; ; n++ {
		v := low + float64(n)*step
		if v > high+step/2 {
			break
		}
		to.line([]point{{leftEdge, y(v)}, {rightEdge, y(v)}}, 1, faint)
		to.text(leftEdge-6, y(v)+4, 12, right, grey, strconv.FormatFloat(v, 'f', digits(step), 64))
	}
	var curve []point
	for i, p := range k.Points {
		if k.Step && i > 0 {
			curve = append(curve, point{x(p.At), y(k.Points[i-1].Y)})
		}
		curve = append(curve, point{x(p.At), y(p.Y)})
	}
	to.line(curve, 1.5, blue)
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
