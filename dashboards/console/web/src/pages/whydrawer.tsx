// One alarm: what can be done about it, and why there is it. One sentence, the
// comparisons in words, the curve with the limit, below it everything the rule
// looked at, and what happened since.
import { useMemo, useState } from 'preact/hooks'
import { enc, get, post, query } from '../api'
import { may, state, useLive, useLoad, useNames } from '../app'
import Chart from '../chart'
import { duration, fullTime, now, span, time, unit, value } from '../format'
import { known, t, text } from '../i18n'
import { Icon, Listing, Modal, modelTitle, SeverityMark, useBusy, Wait, When, who, Wrong } from '../ui'
import { href } from '../url'
import { curve, leafWords, reasonWords, stepWords } from '../why'
import type { Alarm, AlarmStep, Device as DeviceData, Explanation, Input, Leaf, List, Model, Series } from '../types'
import { AlarmButtons, AlarmState, Assign, isExplained, isNamed, PutAside, type Aside } from './alarms'

/** Why is the drawer of one alarm; onOther opens that of another one instead. */
export function Why({ id, alarm, onClose, onOther }: { id: string; alarm: Alarm | undefined; onClose: () => void; onOther?: (id: string) => void }) {
  const why = useLoad('why ' + id, (signal) => get<Explanation>(`/alarms/${enc(id)}/why`, signal))
  const fresh = useLoad('alarm ' + id, (signal) => get<Alarm>(`/alarms/${enc(id)}`, signal))
  const steps = useLoad('history ' + id, (signal) => get<List<AlarmStep>>(`/alarms/${enc(id)}/history`, signal))
  const [aside, setAside] = useState<Aside>()
  const [assigning, setAssigning] = useState(false)
  const put = (x: Alarm) => {
    fresh.change(() => x)
    steps.again()
  }
  useLive<Alarm>('alarm', (x) => x.id === id && put(x))
  const a = fresh.data ?? alarm
  const name = useNames(a === undefined ? [] : [a.device])
  const e = why.data
  return (
    <Modal title={t('why.title')} kind="drawer" onClose={onClose}>
      {a !== undefined && (
        <p class="lead">
          <SeverityMark of={e?.severity ?? a.severity} />
          <strong>{text(a.title, a.rule)}</strong>
          <Device id={a.device} name={name(a.device)} />
        </p>
      )}
      {a !== undefined && (
        <div class="orders">
          <div>
            <AlarmState a={a} />
            {isExplained(a) && isNamed(a) && onOther !== undefined && (
              <button type="button" class="link" onClick={() => onOther(a.suppressed_by!)}>
                {t('al.showOther')}
              </button>
            )}
          </div>
          <span class="buttons">
            <AlarmButtons a={a} put={put} onAside={setAside} all />
            {may('alarms') && (
              <button type="button" aria-haspopup="dialog" onClick={() => setAssigning(true)}>
                {t('al.assign')}
              </button>
            )}
          </span>
        </div>
      )}
      {e === undefined ? <Wait of={why} /> : <Explained e={e} a={a} />}
      <section>
        <h3>{t('why.history')}</h3>
        {steps.data === undefined ? (
          <Wait of={steps} />
        ) : (
          <Steps of={steps.data.items} />
        )}
        {may('alarms') && a !== undefined && <Comment a={a} put={put} />}
      </section>
      {a !== undefined && aside !== undefined && <PutAside a={a} how={aside} put={put} onClose={() => setAside(undefined)} />}
      {a !== undefined && assigning && <Assign a={a} put={put} onClose={() => setAssigning(false)} />}
    </Modal>
  )
}

const few = 30

/** Steps is what happened to an alarm, the oldest first; of a long history the newest steps. */
function Steps({ of }: { of: AlarmStep[] }) {
  const [all, setAll] = useState(false)
  return (
    <>
      {!all && of.length > few && (
        <p>
          <button type="button" class="link" onClick={() => setAll(true)}>
            {t('why.earlier', of.length - few)}
          </button>
        </p>
      )}
      <ol class="timeline">
        {(all ? of : of.slice(-few)).map((s, i) => {
          const said = s.text || reasonWords(s.reason ?? '')
          return (
            <li key={i} class={s.kind === 'commented' ? 'step-comment' : ''}>
              <p>
                <strong>{stepWords(s)}</strong>{' '}
                <span class="quiet">
                  {s.by && <>{who(s.by)} · </>}
                  <When at={s.at} />
                </span>
              </p>
              {said && <p class="said">{said}</p>}
            </li>
          )
        })}
      </ol>
    </>
  )
}

function Comment({ a, put }: { a: Alarm; put: (a: Alarm) => void }) {
  const [said, setSaid] = useState('')
  const { busy, error, run } = useBusy()
  return (
    <form
      class="comment"
      onSubmit={(e) => {
        e.preventDefault()
        if (said.trim() === '') return
        run(async () => {
          put(await post<Alarm>(`/alarms/${enc(a.id)}/comment`, { text: said.trim() }))
          setSaid('')
        })
      }}
    >
      <label>
        {t('al.comment')}
        <textarea rows={2} maxLength={2000} value={said} placeholder={t('al.commentHint')} onInput={(e) => setSaid(e.currentTarget.value)} />
      </label>
      <Wrong text={error} />
      <footer>
        <button type="submit" disabled={busy || said.trim() === ''}>
          {t('al.commentDo')}
        </button>
      </footer>
    </form>
  )
}

function Explained({ e, a }: { e: Explanation; a: Alarm | undefined }) {
  const deviceID = a?.device ?? e.inputs?.[0]?.device
  const device = useLoad('device ' + deviceID, async (signal) =>
    deviceID === undefined ? undefined : get<DeviceData>('/devices/' + enc(deviceID), signal),
  )
  const model = device.data === undefined ? undefined : state.models.get(device.data.model)
  return (
    <>
      {text(e.summary) && <p class="summary">{text(e.summary)}</p>}
      <p>{held(e)}</p>
      <Compared e={e} model={model} />
      {deviceID !== undefined && model !== undefined && <Curve e={e} a={a} device={deviceID} model={model} />}
      <Used e={e} model={model} alone={a !== undefined && a.entity === a.device} />
      <section>
        <h3>{t('why.rule')}</h3>
        <pre class="code" tabIndex={0}>
          {e.condition}
        </pre>
        <p class="quiet small">
          <a href={href(['rules', e.rule])}>{e.rule}</a> · {t('why.version', e.version)}
          {model !== undefined && <> · {modelTitle(model.name)}</>}
        </p>
      </section>
    </>
  )
}

const isSeveral = (e: Explanation) => new Set((e.leaves ?? []).map((l) => l.device)).size > 1

/** Compared are the comparisons of a condition, each with both of its sides. */
export function Compared({ e, model }: { e: Explanation; model: Model | undefined }) {
  const name = useNames([...new Set((e.leaves ?? []).map((l) => l.device ?? ''))].slice(0, 50))
  const several = isSeveral(e)
  return (
    <>
      {(e.leaves ?? []).length > 0 && (
        <section>
          <h3>{t('why.checks')}</h3>
          <ul class="leaves">
            {e.leaves!.map((l, i) => (
              <li key={i} class={'leaf-' + l.result}>
                <LeafSign of={l.result} />
                <span>
                  {leafWords(l, model)}
                  <span class="sub">
                    {t(`why.${l.result}`)} · {several && l.device && <>{name(l.device)} · </>}
                    <code>{l.text}</code>
                  </span>
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  )
}

/** Used is everything else that a condition looked at; alone, the device and its neighbours instead of a group. */
export function Used({ e, model, alone }: { e: Explanation; model: Model | undefined; alone: boolean }) {
  const members = [...(e.members ?? [])].sort((x, y) => Number(y.result === 'true') - Number(x.result === 'true'))
  const name = useNames([...new Set([...(e.inputs ?? []).map((i) => i.device), ...members.map((m) => m.device)])].slice(0, 50))
  const several = isSeveral(e)
  return (
    <>
      {members.length > 0 && (
        <section>
          <h3>{alone ? t('why.neighbours') : t('why.members')}</h3>
          <ul class="leaves">
            {members.map((m) => (
              <li key={m.device} class={'leaf-' + m.result}>
                <LeafSign of={m.result} />
                <span>
                  <Device id={m.device} name={name(m.device)} />
                  <span class="sub">
                    {known('why.', m.result)} {m.time && <When at={m.time} />}
                  </span>
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
      <Inputs title={t('why.inputs')} of={e.inputs ?? []} model={model} />
      {(e.attributes ?? []).length > 0 && (
        <section>
          <h3>{t('why.limits')}</h3>
          <ul class="bare">
            {e.attributes!.map((x) => {
              const d = model?.attributes?.find((d) => d.name === x.name.replace(/^attr\./, ''))
              return (
                <li key={x.name}>
                  {text(d?.title, x.name)}: <b>{value(x.value, d?.unit)}</b> <span class="quiet">({known('why.from.', x.from)})</span>
                </li>
              )
            })}
          </ul>
        </section>
      )}
      {(e.windows ?? []).length > 0 && (
        <section>
          <h3>{t('why.windows')}</h3>
          <ul class="bare">
            {e.windows!.map((w, i) => (
              <li key={i}>
                <code>{w.text}</code> = <b>{value(w.result)}</b>
                <span class="sub">
                  {several && w.device && <>{name(w.device)} · </>}
                  {t('why.window', fullTime(w.from), time(w.to), w.samples)}
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  )
}

/** Inputs are readings that a condition looked at. */
export function Inputs({ title, of, model }: { title: string; of: Input[]; model: Model | undefined }) {
  const name = useNames([...new Set(of.map((i) => i.device))].slice(0, 50))
  if (of.length === 0) return null
  return (
    <section>
      <h3>{title}</h3>
      <table class="plain">
        <thead>
          <tr>
            <th>{t('de.device')}</th>
            <th>{t('de.metric')}</th>
            <th>{t('why.value')}</th>
            <th>{t('why.measured')}</th>
            <th>{t('why.arrived')}</th>
          </tr>
        </thead>
        <tbody>
          {of.map((i, n) => (
            <tr key={n}>
              <td>
                <Device id={i.device} name={name(i.device)} />
              </td>
              <td>{text(model?.metrics.find((m) => m.name === i.metric)?.title, i.metric)}</td>
              <td class="num">{value(i.value, i.unit)}</td>
              <td>
                <When at={i.time} />
              </td>
              <td>
                <When at={i.arrived} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  )
}

const Device = ({ id, name }: { id: string; name: string }) => (
  <a href={href(['devices', id])} title={id}>
    {name}
  </a>
)

function held(e: Explanation): string {
  const need = duration(e.held)
  if (e.since === undefined || need === 0) return t('why.atonce', fullTime(e.at))
  return t('why.heldFor', fullTime(e.since), time(e.at), span(need))
}

function LeafSign({ of }: { of: Leaf['result'] | string }) {
  return <Icon name={of === 'true' ? 'check' : of === 'false' ? 'close' : 'never'} size={16} />
}

function Curve({ e, a, device, model }: { e: Explanation; a: Alarm | undefined; device: string; model: Model }) {
  const c = curve(
    e,
    model.metrics.map((m) => m.name),
  )
  const metric = model.metrics.find((m) => m.name === c?.metric)
  const at = Date.parse(e.at)
  // Fixed while the drawer is open, so that the curve does not move under the eyes.
  const [from, to] = useMemo(() => {
    const before = Math.max(30 * 60_000, 2 * duration(e.held), 6 * duration(model.report))
    const end = a?.cleared_at === undefined ? now() : Date.parse(a.cleared_at)
    const last = Math.max(at + before / 2, Math.min(end, at + 6 * before))
    return [(e.since === undefined ? at : Date.parse(e.since)) - before, Math.min(last, Math.max(now(), at + 60_000))]
  }, [e, a?.cleared_at])
  const key = `curve ${device} ${c?.metric} ${e.at}`
  const series = useLoad(key, async (signal) =>
    c === undefined
      ? undefined
      : get<Series>(
          `/devices/${enc(device)}/series` + query({ metric: c.metric, from: new Date(from).toISOString(), to: new Date(to).toISOString() }),
          signal,
        ),
  )
  if (c === undefined || metric === undefined) return null
  const u = series.data?.unit ?? metric.unit
  const name = text(metric.title, metric.name)
  const points = series.data?.points ?? []
  const first = points[0] === undefined ? from : Date.parse(points[0][0]) - 60_000
  return (
    <section>
      <h3>{c.limits.length > 0 ? t('why.curve', name) : t('why.curveNoLimit', name)}</h3>
      <Listing of={series} n={points.length} none={t('why.noCurve')}>
        <Chart
          points={points}
          metric={metric}
          name={name + (unit(u) === '' ? '' : ` (${unit(u)})`)}
          unit={u}
          from={Math.max(from, first)}
          to={to}
          gap={Math.max(2 * duration(model.heartbeat), 3 * duration(model.report)) || Infinity}
          limits={c.limits.map((l) => ({ value: l.value, text: value(l.value, u) }))}
          mark={at}
          height={200}
        />
      </Listing>
    </section>
  )
}
