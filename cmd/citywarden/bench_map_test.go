package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// TestManyDevicesOnTheMap measures what `make bench-map` tells of: how long the
// console takes until the demo's map is drawn, then, with many devices
// registered by CSV and spread over the county, how large and how fast the devices' GeoJSON is, and
// how many frames a second there are while somebody drags the map and zooms it,
// while the demo goes on. Chromium draws by software (SwiftShader), which is most of a frame: what
// the same map takes with every layer off, and in a quarter of the window, stands beside it.
func TestManyDevicesOnTheMap(t *testing.T) {
	devices, _ := strconv.Atoi(os.Getenv("BENCH_MAP"))
	if devices == 0 {
		t.Skip("say how many devices: BENCH_MAP=100000, or make bench-map")
	}
	p := launchForBrowser(t, "--demo")
	b := openBrowser(t, p.http, "zh-CN")
	b.signIn("admin", testPassword, "登录", "地图")
	b.drawn()
	began := time.Now()
	b.visit("/", "地图")
	b.do(chromedp.WaitVisible(chromedp.CSS(".strip b")))
	numbers := time.Since(began)
	b.drawn()
	t.Logf("demo: numbers and lists after %v, map drawn after %v", numbers.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))

	measureFrames(b, "demo")
	layers(b, false)
	measureFrames(b, "empty map")

	c := clientOf(t, p)
	const atOnce = 20_000
	r := rand.New(rand.NewPCG(1, 2))
	began = time.Now()
	for from := 0; from < devices; from += atOnce {
		var csv bytes.Buffer
		csv.WriteString("id,name,model,lat,lon\n")
		for i := from; i < min(from+atOnce, devices); i++ {
			fmt.Fprintf(&csv, "many-%06d,烟感 %06d,smoke-detector,%.6f,%.6f\n", i, i, 24.08+0.09*r.Float64(), 117.57+0.1*r.Float64())
		}
		var report struct{ Created, Failed int }
		if err := c.call(t.Context(), "POST", "/devices/import", &csv, &report); err != nil || report.Failed > 0 {
			t.Fatalf("import: %+v, %v", report, err)
		}
	}
	t.Logf("%d devices imported in %v", devices, time.Since(began).Round(time.Millisecond))
	packed, plain, took := mapDevices(t, c)
	t.Logf("devices' GeoJSON: %.1f MB, %.2f MB packed, in %v", float64(plain)/1e6, float64(packed)/1e6, took.Round(time.Millisecond))

	began = time.Now()
	b.visit("/", "地图")
	b.drawn()
	t.Logf("map with %d devices drawn after %v", devices, time.Since(began).Round(time.Millisecond))
	b.screenshot("map-many")
	measureFrames(b, fmt.Sprint(devices, " devices"))
	layers(b, false)
	measureFrames(b, "empty map beside them")
	layers(b, true)
	b.do(chromedp.EmulateViewport(640, 400))
	b.drawn()
	measureFrames(b, fmt.Sprint(devices, " devices, 640 x 400"))
	b.calm()
}

// layers switches every layer that the legend has on or off.
func layers(b *browser, on bool) {
	b.t.Helper()
	js := fmt.Sprintf(`(() => {
		const box = document.querySelector('.legend')
		if (!box.classList.contains('open')) { box.querySelector('button').click(); return false }
		for (const x of box.querySelectorAll('input')) if (x.checked !== %t) { x.click(); return false }
		box.querySelector('button').click()
		return true
	})()`, on)
	if !wait(30*time.Second, func() bool {
		done, err := evaluate[bool](b, js)
		return err == nil && done
	}) {
		b.t.Fatal("the legend does not switch the layers")
	}
	b.drawn()
}

// mapDevices asks for the devices of the map as a browser does.
func mapDevices(t *testing.T, c *client) (packed, plain int, took time.Duration) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", c.base+"/map/devices", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept-Encoding", "gzip")
	began := time.Now()
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%s with encoding %q: %v", res.Status, res.Header.Get("Content-Encoding"), err)
	}
	took = time.Since(began)
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, z)
	if err != nil {
		t.Fatal(err)
	}
	return len(body), int(n), took
}

// measureFrames drags the map to and fro, and zooms it in and out by the wheel,
// for some seconds each, and says of what how long the frames took, which is the
// machine's load too, and what CPU time they took of the page's thread, which is not.
func measureFrames(b *browser, what string) {
	b.t.Helper()
	for _, way := range []string{"drag", "wheel"} {
		js := fmt.Sprintf(`(async () => {
			const way = %q
			const canvas = document.querySelector('.canvas canvas')
			const box = canvas.getBoundingClientRect()
			const x0 = box.left + box.width / 2, y0 = box.top + box.height / 2
			const mouse = (to, type, x, y, buttons) => to.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true, view: window, clientX: x, clientY: y, button: 0, buttons }))
			const frames = []
			let last
			if (way === 'drag') mouse(canvas, 'mousedown', x0, y0, 1)
			await new Promise((done) => {
				const began = performance.now()
				const step = (now) => {
					if (last !== undefined) frames.push(now - last)
					last = now
					const s = (now - began) / 1000
					if (s > 8) return done()
					if (way === 'drag') mouse(document, 'mousemove', x0 + 250 * Math.sin(2 * s), y0 + 150 * Math.sin(3 * s), 1)
					else canvas.dispatchEvent(new WheelEvent('wheel', { bubbles: true, cancelable: true, clientX: x0, clientY: y0, deltaY: Math.sin(1.5 * s) > 0 ? -20 : 20 }))
					requestAnimationFrame(step)
				}
				requestAnimationFrame(step)
			})
			if (way === 'drag') mouse(document, 'mouseup', x0, y0, 0)
			frames.sort((a, b) => a - b)
			const at = (q) => frames[Math.floor(q * (frames.length - 1))].toFixed(0)
			const sum = frames.reduce((a, b) => a + b, 0)
			return { count: frames.length, text: (1000 * frames.length / sum).toFixed(1) + ' frames/s; a frame takes ' + at(0.5) + ' ms (median), ' + at(0.95) + ' ms (95 of 100), ' + at(1) + ' ms at most' }
		})()`, way)
		before := b.taskSeconds()
		got, err := chromedp.Run(b.ctx, chromedp.Evaluate[struct {
			Count int
			Text  string
		}](js, chromedp.EvalAwaitPromise))
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Logf("%s, %s: %s; %.1f ms CPU of the page's thread", what, way, got.Text, 1000*(b.taskSeconds()-before)/float64(got.Count))
	}
}

// taskSeconds returns the CPU time that the page's thread has taken.
func (b *browser) taskSeconds() (sum float64) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
		b.t.Fatal(err)
	}
	got, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range got.Metrics {
		if m.Name == "TaskDuration" {
			sum = m.Value
		}
	}
	return sum
}
