// A curve of one metric, drawn by uPlot, which is loaded when the first curve is.
import type uPlot from 'uplot'
import { useEffect, useRef, useState } from 'preact/hooks'
import { useRedraw, redraw } from './app'
import { clockTime, dayTime, fullTime, num, timeZone, value, withGaps } from './format'
import { t } from './i18n'
import type { Metric, Value } from './types'

export interface ChartProps {
  points: [string, Value][]
  metric: Metric | undefined
  name: string
  unit: string | undefined
  from: number
  to: number
  /** gap: two points further apart (ms) are not joined */
  gap: number
  limits?: { value: number; text: string }[]
  mark?: number
  height?: number
}

/** Chart shows points; gaps stay gaps. Its values are also in its description for screen readers. */
export default function Chart(p: ChartProps) {
  const box = useRef<HTMLDivElement>(null)
  const [uplot, setUPlot] = useState<typeof uPlot>()
  useRedraw(redraw)
  useEffect(() => {
    void Promise.all([import('uplot'), import('uplot/dist/uPlot.min.css')]).then(([m]) => setUPlot(() => m.default))
  }, [])
  const bool = p.metric?.kind === 'bool'
  const { theme = '', contrast = '' } = document.documentElement.dataset
  useEffect(() => {
    if (uplot === undefined || box.current === null) return
    const el = box.current
    const style = getComputedStyle(el)
    const color = (n: string) => style.getPropertyValue(n).trim()
    const [xs, ys] = withGaps(p.points, p.gap)
    const limits = p.limits ?? []
    const long = p.to - p.from > 36 * 3_600_000
    const tick = { stroke: color('--ink-2'), grid: { stroke: color('--line'), width: 1 }, ticks: { stroke: color('--line'), width: 1 }, font: '12px ' + style.fontFamily }
    // While nothing is pointed at, the legend shows the newest value.
    const newest = (u: uPlot) => {
      if (u.legend.idx === null || u.legend.idx === undefined) u.setLegend({ idx: Math.max(0, ys.findLastIndex((y) => y !== null)) }, false)
    }
    const chart = new uplot(
      {
        width: el.clientWidth,
        height: p.height ?? 260,
        tzDate: (s) => uplot.tzDate(new Date(s * 1000), timeZone()),
        cursor: { y: false, drag: { x: false, y: false } },
        legend: { show: true, live: true },
        scales: {
          x: { time: true, range: () => [p.from / 1000, p.to / 1000] },
          y: bool
            ? { range: () => [-0.15, 1.15] }
            : {
                range: (_u, lo, hi) => {
                  const all = [lo, hi, ...limits.map((l) => l.value)].filter((x) => x !== null && Number.isFinite(x))
                  if (all.length === 0) return [0, 1]
                  const min = Math.min(...all)
                  const max = Math.max(...all)
                  const pad = (max - min) * 0.1 || Math.abs(max) * 0.1 || 1
                  return [min >= 0 && min - pad < 0 ? 0 : min - pad, max + pad]
                },
              },
        },
        axes: [
          { ...tick, space: 70, values: (_u, at) => at.map((s) => (long ? dayTime(s * 1000) + ' ' : '') + clockTime(s * 1000, at.length > 1 && at[1]! - at[0]! < 60)) },
          {
            ...tick,
            size: 56,
            splits: bool ? () => [0, 1] : undefined,
            values: (_u, at) => at.map((v) => (bool ? value(v === 1) : num(v))),
          },
        ],
        series: [
          { label: t('de.measured'), value: (_u, s) => (s === null ? '–' : fullTime(s * 1000)) },
          {
            label: p.name,
            stroke: color('--curve'),
            width: 1.6,
            spanGaps: false,
            paths: bool || p.metric?.counter ? uplot.paths.stepped?.({ align: 1 }) : undefined,
            points: { show: (_u, _s, i0, i1) => i1 - i0 < 80, size: 4, fill: color('--curve') },
            value: (_u, v) => (v === null ? '–' : bool ? value(v === 1) : value(v, p.unit)),
          },
        ],
        hooks: {
          ready: [newest],
          setLegend: [newest],
          draw: [
            (u) => {
              const c = u.ctx
              c.save()
              c.font = `${12 * devicePixelRatio}px ${style.fontFamily}`
              for (const l of limits) {
                const y = u.valToPos(l.value, 'y', true)
                c.strokeStyle = c.fillStyle = color('--limit')
                c.lineWidth = 1.5 * devicePixelRatio
                c.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio])
                line(c, u.bbox.left, y, u.bbox.left + u.bbox.width, y)
                c.textAlign = 'left'
                c.fillText(l.text, u.bbox.left + 6 * devicePixelRatio, y - 5 * devicePixelRatio)
              }
              if (p.mark !== undefined && p.mark >= p.from && p.mark <= p.to) {
                const x = u.valToPos(p.mark / 1000, 'x', true)
                c.strokeStyle = color('--ink-2')
                c.lineWidth = devicePixelRatio
                c.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio])
                line(c, x, u.bbox.top, x, u.bbox.top + u.bbox.height)
              }
              c.restore()
            },
          ],
        },
      },
      [xs, ys],
      el,
    )
    const resize = new ResizeObserver(() => chart.setSize({ width: el.clientWidth, height: p.height ?? 260 }))
    resize.observe(el)
    return () => {
      resize.disconnect()
      chart.destroy()
    }
  }, [uplot, p.points, p.from, p.to, p.name, theme, contrast])
  const last = p.points.at(-1)
  return (
    <div
      class="chart"
      ref={box}
      role="img"
      style={{ minHeight: (p.height ?? 260) + 30 }}
      aria-label={t('de.chartLabel', p.name, p.points.length, fullTime(p.from), fullTime(p.to), last === undefined ? '–' : value(last[1], p.unit))}
    />
  )
}

function line(c: CanvasRenderingContext2D, x1: number, y1: number, x2: number, y2: number) {
  c.beginPath()
  c.moveTo(x1, y1)
  c.lineTo(x2, y2)
  c.stroke()
}
