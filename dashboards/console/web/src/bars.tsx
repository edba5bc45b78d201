// Bars over time, made of plain elements: they need no library, and each part
// of the time can be a link. With a goal they are grey, and coloured only above it.
import { clockTime, dayTime, num, time } from './format'
import type { Bar } from './load'

// parts cuts bars into twelve, which are wide enough for a finger.
function parts(bars: Bar[]): Bar[][] {
  const n = Math.max(1, Math.ceil(bars.length / 12))
  const out: Bar[][] = []
  for (let i = 0; i < bars.length; i += n) out.push(bars.slice(i, i + n))
  return out
}

/** Bars draws bars; the first series in the colour of curves, a second one as its outline. */
export function Bars({
  bars,
  names,
  label,
  goal,
  to,
}: {
  bars: Bar[]
  names: string[]
  label: string
  goal?: { value: number; text: string }
  to?: (from: number, to: number) => string
}) {
  const top = Math.max(1, goal?.value ?? 0, ...bars.flatMap((b) => b.values)) * 1.1
  const look = (v: number) => (goal === undefined ? '' : v > goal.value ? ' over' : ' calm')
  const height = (v: number) => `${(v / top) * 100}%`
  const days = bars.length > 0 && bars.at(-1)!.to - bars[0]!.from > 36 * 3_600_000
  const marks = bars.filter((_, i) => i % Math.ceil(bars.length / 6) === 0)
  const place = (x: number) => (bars.length === 0 ? '0' : `${((x - bars[0]!.from) / (bars.at(-1)!.to - bars[0]!.from)) * 100}%`)
  return (
    <figure class="bars">
      <figcaption class="hidden">{label}</figcaption>
      {names.length > 1 && (
        <p class="small keys">
          {names.map((n, i) => (
            <span key={n} class="mark">
              <i class={'bar bar-' + i} aria-hidden="true" /> {n}
            </span>
          ))}
        </p>
      )}
      <div class="plot">
        <span class="quiet small most" aria-hidden="true">
          {num(Math.max(0, ...bars.flatMap((b) => b.values)))}
        </span>
        {goal !== undefined && (
          <span class="goal small" style={{ bottom: height(goal.value) }}>
            {goal.text}
          </span>
        )}
        <ul class="bare">
          {parts(bars).map((part) => {
            const from = part[0]!.from
            const until = part.at(-1)!.to
            const words = `${time(from)} – ${clockTime(until)}: ${names.map((n, i) => `${n} ${Math.max(...part.map((b) => b.values[i]!))}`).join(', ')}`
            const drawn = part.map((b) => (
              <span key={b.from} title={`${time(b.from)} – ${clockTime(b.to)}: ${b.values.join(', ')}`}>
                {b.values.map((v, i) => v > 0 && <i key={i} class={'bar bar-' + i + look(v)} style={{ height: height(v) }} />)}
              </span>
            ))
            const empty = part.every((b) => b.values.every((v) => v === 0))
            return (
              <li key={from} style={{ flex: part.length }}>
                {to !== undefined && !empty ? (
                  <a href={to(from, until)} aria-label={words}>
                    {drawn}
                  </a>
                ) : (
                  <div>
                    {!empty && <span class="hidden">{words}</span>}
                    {drawn}
                  </div>
                )}
              </li>
            )
          })}
        </ul>
      </div>
      <div class="axis small quiet" aria-hidden="true">
        {marks.map((b) => (
          <span key={b.from} style={{ left: place(b.from) }}>
            {days ? dayTime(b.from) + ' ' : ''}
            {clockTime(b.from)}
          </span>
        ))}
      </div>
    </figure>
  )
}
