// The map of the county: what is going on and where, with the list of what
// needs attention beside it. What is selected lives in the address.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { ApiError, enc, get, list, query } from '../api'
import { back, go, redraw, state, upsert, useLive, useLoad, useRedraw, useTick } from '../app'
import { num, value } from '../format'
import { className, lang, known, t, text, type Key } from '../i18n'
import { Deadline, Failed, Icon, lightOf, Loading, modelTitle, SeverityIcon, SeverityMark, StatusMark, When, domainOf, DomainIcon } from '../ui'
import { href, withFilter } from '../url'
import { openStages, severities, type Alarm, type Case, type Component, type Device, type MapInfo, type Point, type Severity, type Summary } from '../types'
import type { MapView, Picked } from '../mapview'
import { byWeight, inView } from './alarms'
import { byUrgency, Fact } from './cases'
import { Brief } from './devices'

const most = 200_000

export function MapPage({ search }: { search: string }) {
  useTick(5000)
  const q = new URLSearchParams(search)
  const devices = useLoad('map devices', (signal) => list<Device>('/devices', {}, most, signal))
  const alarms = useLoad('map alarms', (signal) => list<Alarm>('/alarms', { state: 'active' }, 5000, signal))
  const cases = useLoad('map cases', async (signal) => {
    const [a, b] = await Promise.all([
      list<Case>('/cases', { open: 'true' }, 3000, signal),
      list<Case>('/cases', { open: 'true', work_orders: 'true' }, 3000, signal),
    ])
    return [...a.items, ...b.items]
  })
  useLive<Alarm>('alarm', (a) => alarms.change((l) => ({ ...l, items: upsert(l.items, a) })))
  useLive<Case>('case', (c) => cases.change((l) => upsert(l, c)))
  useLive<Device>('device', (d) => devices.change((l) => ({ ...l, items: upsert(l.items, d) })))
  // Who fell silent is also asked for now and then; seldom when there are many.
  const count = devices.data?.items.length ?? 0
  useEffect(() => {
    const i = setInterval(devices.again, Math.max(60_000, count * 10))
    return () => clearInterval(i)
  }, [Math.round(Math.log2(count + 1))])

  const open = useMemo(
    () => (alarms.data?.items ?? []).filter((a) => inView(a, 'open')).sort(byWeight),
    [alarms.data],
  )
  const openCases = useMemo(() => (cases.data ?? []).filter((c) => openStages.includes(c.stage)).sort(byUrgency), [cases.data])
  const device = q.get('device') ?? ''
  const caseID = q.get('case') ?? ''
  const grid = q.get('grid') ?? ''
  const componentID = q.get('component') ?? ''
  const component = useLoad('component ' + componentID, async (signal) =>
    componentID === '' ? undefined : get<Component>('/components/' + enc(componentID), signal),
  )
  const [feature, setFeature] = useState<Extract<Picked, { kind: 'feature' }>>()

  const select = (p: Picked) => {
    setFeature(p?.kind === 'feature' ? p : undefined)
    go(p === undefined || p.kind === 'feature' ? '/' : href([], { [p.kind]: p.id }), true)
  }
  const selectedDevice = (devices.data?.items ?? []).find((d) => d.id === device)
  const selectedCase = (cases.data ?? []).find((c) => c.id === caseID)
  return (
    <>
      <h1 class="hidden">{t('map.title')}</h1>
      <Strip />
      <div class="mapside">
        <Canvas
          search={search}
          devices={devices.data?.items}
          alarms={open}
          cases={openCases}
          picked={selectedDevice?.location ?? selectedCase?.location ?? component.data?.location}
          grid={grid}
          onPick={select}
        />
        <aside class="side" aria-label={t('map.attention')}>
          {selectedDevice !== undefined ? (
            <DeviceCard d={selectedDevice} alarms={open} onClose={() => select(undefined)} />
          ) : selectedCase !== undefined ? (
            <CaseCard c={selectedCase} onClose={() => select(undefined)} />
          ) : componentID !== '' ? (
            component.data === undefined ? (
              component.error ? <Failed error={component.error} again={component.again} /> : <Loading />
            ) : (
              <ComponentCard key={componentID} x={component.data} onClose={() => select(undefined)} />
            )
          ) : grid !== '' ? (
            <GridCard code={grid} devices={devices.data?.items ?? []} cases={openCases} onClose={() => select(undefined)} />
          ) : feature !== undefined ? (
            <FeatureCard f={feature} onClose={() => select(undefined)} />
          ) : (
            <Attention
              alarms={open}
              cases={openCases}
              devices={devices.data?.items ?? []}
              error={alarms.error || cases.error}
              loading={alarms.data === undefined || cases.data === undefined}
              again={() => {
                alarms.again()
                cases.again()
              }}
            />
          )}
        </aside>
      </div>
    </>
  )
}

/** Strip is the county in numbers: quiet numbers are grey. */
function Strip() {
  const s = useLoad('summary', (signal) => get<Summary>('/summary', signal))
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  const soon = () => {
    if (timer.current !== undefined) return
    timer.current = setTimeout(() => {
      timer.current = undefined
      s.again()
    }, 1000)
  }
  useLive('alarm', soon)
  useLive('case', soon)
  useEffect(() => {
    const i = setInterval(s.again, 30_000)
    return () => {
      clearInterval(i)
      clearTimeout(timer.current)
    }
  }, [])
  const d = s.data
  if (d === undefined) return <div class="strip" aria-busy="true" />
  const by = d.alarms.by_severity ?? {}
  const present = severities.filter((x) => (by[x] ?? 0) > 0)
  return (
    <section class="strip" aria-label={t('sum.label')}>
      <a href="/alarms">
        <span class="label">{t('sum.alarms')}</span>
        <b>{d.alarms.active}</b>
        {present.length === 0 ? (
          <span class="quiet">{t('sum.quiet')}</span>
        ) : (
          <span class="sevs">
            {present.map((x) => (
              <span key={x} class="mark">
                <SeverityIcon of={x} size={16} /> {t(`sev.${x}`)} {by[x]}
              </span>
            ))}
          </span>
        )}
        {d.alarms.unacked > 0 && <strong>{t('sum.unacked', d.alarms.unacked)}</strong>}
      </a>
      <a href="/cases">
        <span class="label">{t('sum.cases')}</span>
        <b>{d.cases.open}</b>
        {d.cases.overdue > 0 ? (
          <strong class="mark light-red">
            <Icon name="warn" size={16} /> {t('sum.overdue', d.cases.overdue)}
          </strong>
        ) : (
          <span class="quiet">{t('sum.ontime')}</span>
        )}
        <span class="quiet stagelist">
          {openStages
            .filter((x) => (d.cases.by_stage?.[x] ?? 0) > 0)
            .map((x) => `${t(`stage.${x}`)} ${d.cases.by_stage![x]}`)
            .join(' · ')}
        </span>
      </a>
      <a href="/devices">
        <span class="label">{t('sum.devices')}</span>
        <b>{d.devices.total}</b>
        <span class="quiet">{t('sum.online', d.devices.online)}</span>
        {d.devices.silent > 0 && (
          <span class="mark">
            <Icon name="silent" size={15} /> {t('sum.silent', d.devices.silent)}
          </span>
        )}
        {d.devices.never > 0 && <span class="quiet">{t('sum.never', d.devices.never)}</span>}
      </a>
    </section>
  )
}

interface CanvasProps {
  search: string
  devices: Device[] | undefined
  alarms: Alarm[]
  cases: Case[]
  picked: Point | undefined
  grid: string
  onPick: (p: Picked) => void
}

const switches = ['grids', 'streets', 'buildings', 'pipes', 'dmas', 'components', 'devices', 'cases'] as const

function Canvas(p: CanvasProps) {
  useRedraw(redraw)
  const box = useRef<HTMLDivElement>(null)
  const view = useRef<MapView | undefined>(undefined)
  const [ready, setReady] = useState(false)
  const [problem, setProblem] = useState('')
  const [tries, setTries] = useState(0)
  const [legend, setLegend] = useState(() => matchMedia('(min-width: 1400px)').matches)
  const [off, setOff] = useState<ReadonlySet<string>>(new Set(['dmas']))
  const [layers, setLayers] = useState<string[]>([])
  const pick = useRef(p.onPick)
  pick.current = p.onPick
  const theme = document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light'

  useEffect(() => {
    const abort = new AbortController()
    void (async () => {
      try {
        const [{ MapView }, info] = await Promise.all([import('../mapview'), get<MapInfo>('/map', abort.signal)])
        if (abort.signal.aborted || box.current === null) return
        if (!hasGL()) return setProblem('map.nogl')
        const v = new MapView(box.current, info, theme, (x) => pick.current(x), t('map.canvas'))
        view.current = v
        for (const s of off) v.show(s, false)
        setReady(true)
        const names = (info.layers ?? []).filter((l) => (switches as readonly string[]).includes(l))
        setLayers(names)
        await Promise.all(
          names.map(async (name) => {
            const data = await get<GeoJSON.FeatureCollection>('/map/layers/' + enc(name), abort.signal)
            if (!abort.signal.aborted) v.setLayer(name, data)
          }),
        )
      } catch (e) {
        if (abort.signal.aborted) return
        if (!(e instanceof ApiError)) console.error(e)
        setProblem('map.failed')
      }
    })()
    return () => {
      abort.abort()
      view.current?.destroy()
      view.current = undefined
    }
  }, [tries])
  const again = () => {
    setProblem('')
    setReady(false)
    setTries((n) => n + 1)
  }
  // Once the connection is back, what failed is tried again.
  useEffect(() => (problem === 'map.failed' ? back.on(again) : undefined), [problem])

  useEffect(() => view.current?.setLook(theme), [theme, ready])
  const spoken = lang()
  const first = useRef(true)
  useEffect(() => {
    if (!first.current) view.current?.restyle()
    if (ready) first.current = false
  }, [spoken, ready])

  // At most twice a second, however much comes in.
  const waiting = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  const last = useRef(0)
  useEffect(() => {
    if (!ready || p.devices === undefined) return
    clearTimeout(waiting.current)
    waiting.current = setTimeout(
      () => {
        last.current = Date.now()
        view.current?.setDevices(dots(p.devices ?? [], p.alarms))
        view.current?.setCases(
          p.cases.flatMap((c) => (c.location === undefined ? [] : [{ id: c.id, title: text(c.title), light: lightOf(c), at: c.location }])),
        )
      },
      Math.max(0, 500 - (Date.now() - last.current)),
    )
    return () => clearTimeout(waiting.current)
  }, [ready, p.devices, p.alarms, p.cases, spoken])

  useEffect(() => {
    if (!ready) return
    let abort = new AbortController()
    view.current?.whenNear(([west, south, east, north]) => {
      abort.abort()
      abort = new AbortController()
      get<GeoJSON.FeatureCollection>('/components/map' + query({ west, south, east, north }), abort.signal).then(
        (data) => view.current?.setLayer('components', data),
        () => {}, // the next move asks again
      )
    })
    return () => abort.abort()
  }, [ready])

  const at = p.picked
  useEffect(() => view.current?.pick(at, p.grid), [ready, at?.lat, at?.lon, p.grid])
  const to = new URLSearchParams(p.search).get('at') ?? ''
  useEffect(() => {
    const [lon, lat] = to.split(',').map(Number)
    if (ready && to !== '' && Number.isFinite(lon) && Number.isFinite(lat)) view.current?.fly({ lat: lat!, lon: lon! })
  }, [ready, to])

  if (problem === 'map.failed')
    return (
      <div class="map">
        <Failed error={t('map.failed')} again={again} />
      </div>
    )
  if (problem !== '') return <p class="map empty">{t(problem as Key)}</p>
  return (
    <div class="map">
      <div class="canvas" ref={box} />
      {!ready && <Loading />}
      <div class="mapbuttons">
        <button type="button" onClick={() => view.current?.zoom(1)} aria-label={t('map.zoomin')} title={t('map.zoomin')}>
          <Icon name="plus" />
        </button>
        <button type="button" onClick={() => view.current?.zoom(-1)} aria-label={t('map.zoomout')} title={t('map.zoomout')}>
          <Icon name="minus" />
        </button>
        <button type="button" onClick={() => view.current?.fit()} aria-label={t('map.fit')} title={t('map.fit')}>
          <Icon name="fit" />
        </button>
      </div>
      <div class={'legend' + (legend ? ' open' : '')}>
        <button type="button" aria-expanded={legend} onClick={() => setLegend(!legend)}>
          <Icon name="legend" size={16} /> {t('map.legend')}
        </button>
        {legend && (
          <>
            <fieldset>
              <legend class="hidden">{t('map.layers')}</legend>
              {switches
                .filter((s) => s === 'components' || s === 'devices' || s === 'cases' || layers.includes(s))
                .map((s) => (
                  <label class="check" key={s}>
                    <input
                      type="checkbox"
                      checked={!off.has(s)}
                      onChange={(e) => {
                        const next = new Set(off)
                        if (e.currentTarget.checked) next.delete(s)
                        else next.add(s)
                        setOff(next)
                        view.current?.show(s, e.currentTarget.checked)
                      }}
                    />
                    {t(`map.${s}`)}
                  </label>
                ))}
            </fieldset>
            <ul class="bare">
              {severities.slice(0, 4).map((s: Severity) => (
                <li key={s}>
                  <SeverityMark of={s} />
                </li>
              ))}
              {(['online', 'silent', 'never'] as const).map((s) => (
                <li key={s}>
                  <StatusMark of={s} />
                </li>
              ))}
              <li>
                <span class="mark">
                  <Icon name="case" size={16} /> {t('map.caseSign')}
                </span>
              </li>
              <li>
                <span class="mark">
                  <Icon name="component" size={16} /> {t('map.componentSign')}
                </span>
              </li>
              <li>
                <span class="mark">
                  <span class="ring" aria-hidden="true">
                    12
                  </span>{' '}
                  {t('map.cluster')}
                </span>
              </li>
            </ul>
          </>
        )}
      </div>
    </div>
  )
}

function hasGL(): boolean {
  try {
    return document.createElement('canvas').getContext('webgl2') !== null
  } catch {
    return false
  }
}

function dots(devices: Device[], alarms: Alarm[]) {
  const worst = new Map<string, Alarm>()
  for (const a of [...alarms].reverse()) for (const id of [a.device, ...(a.members ?? [])]) worst.set(id, a)
  return devices.flatMap((d) => {
    if (d.location === undefined) return []
    const a = worst.get(d.id)
    return [
      { id: d.id, name: d.name || d.id, domain: domainOf(d.model), status: d.status, at: d.location, severity: a?.severity, title: a === undefined ? undefined : text(a.title, a.rule) },
    ]
  })
}

function Attention({
  alarms,
  cases,
  devices,
  error,
  loading,
  again,
}: {
  alarms: Alarm[]
  cases: Case[]
  devices: Device[]
  error: string
  loading: boolean
  again: () => void
}) {
  if (loading) return error ? <Failed error={error} again={again} /> : <Loading />
  const byID = new Map(devices.map((d) => [d.id, d]))
  return (
    <>
      <h2>{t('map.attention')}</h2>
      {alarms.length === 0 && cases.length === 0 && <p class="quiet">{t('map.calm')}</p>}
      {alarms.length > 0 && (
        <section>
          <h3>
            {t('nav.alarms')} <span class="quiet">{alarms.length}</span>
          </h3>
          <ul class="bare lines">
            {alarms.slice(0, 30).map((a) => {
              const d = byID.get(a.device)
              return (
                <li key={a.id}>
                  <SeverityIcon of={a.severity} />
                  <span class="grow">
                    <a
                      class="title"
                      href={d?.location === undefined ? href(['alarms'], { q: a.device }) : href([], { device: a.device, at: `${d.location.lon},${d.location.lat}` })}
                    >
                      {text(a.title, a.rule)}
                    </a>
                    <span class="sub">
                      {t(`sev.${a.severity}`)} · {d?.name || a.device} · <When at={a.raised_at} ago />
                      {!a.acked && (
                        <>
                          {' · '}
                          <strong class="nowrap">{t('al.unacked')}</strong>
                        </>
                      )}
                    </span>
                  </span>
                </li>
              )
            })}
          </ul>
          {alarms.length > 30 && <a href="/alarms">{t('c.more')}</a>}
        </section>
      )}
      {cases.length > 0 && (
        <section>
          <h3>
            {t('nav.cases')} <span class="quiet">{cases.length}</span>
          </h3>
          <ul class="bare lines">
            {cases.slice(0, 20).map((c) => (
              <li key={c.id}>
                <Icon name="case" size={18} />
                <span class="grow">
                  <a
                    class="title"
                    href={c.location === undefined ? href(['cases', c.id]) : href([], { case: c.id, at: `${c.location.lon},${c.location.lat}` })}
                  >
                    {text(c.title, c.id)}
                  </a>
                  <span class="sub">
                    {t(`stage.${c.stage}`)} · <Deadline of={c} />
                  </span>
                </span>
              </li>
            ))}
          </ul>
          {cases.length > 20 && <a href="/cases">{t('c.more')}</a>}
        </section>
      )}
    </>
  )
}

function CardHead({ title, onClose, icon }: { title: string; onClose: () => void; icon?: preact.ComponentChildren }) {
  return (
    <header class="cardhead">
      {icon}
      <h2>{title}</h2>
      <button type="button" class="ghost" onClick={onClose} aria-label={t('c.close')}>
        <Icon name="close" />
      </button>
    </header>
  )
}

function DeviceCard({ d, alarms, onClose }: { d: Device; alarms: Alarm[]; onClose: () => void }) {
  // The list may be minutes old: ask for this one.
  const fresh = useLoad('device ' + d.id, (signal) => get<Device>('/devices/' + enc(d.id), signal))
  useEffect(() => {
    const i = setInterval(fresh.again, 10_000)
    return () => clearInterval(i)
  }, [d.id])
  const x = fresh.data ?? d
  const mine = alarms.filter((a) => a.device === d.id || a.members?.includes(d.id))
  return (
    <>
      <CardHead title={x.name || x.id} onClose={onClose} icon={<DomainIcon domain={domainOf(x.model)} size={20} />} />
      <p>
        <StatusMark of={x.status} />{' '}
        <span class="quiet">
          {modelTitle(x.model)} · {x.id}
        </span>
      </p>
      {mine.length > 0 && (
        <ul class="bare lines">
          {mine.map((a) => (
            <li key={a.id}>
              <SeverityMark of={a.severity} />
              <span class="grow">
                <a class="title" href={href(['alarms'], { why: a.id })}>
                  {text(a.title, a.rule)}
                </a>
                <span class="sub">
                  <When at={a.raised_at} ago /> · {a.acked ? t('al.acked') : t('al.unacked')}
                  {a.case && (
                    <>
                      {' · '}
                      <a href={href(['cases', a.case])}>{a.case}</a>
                    </>
                  )}
                </span>
              </span>
            </li>
          ))}
        </ul>
      )}
      <Brief d={x} />
      <dl class="tight">
        <Fact name={t('de.lastSeen')}>{x.last_seen && <When at={x.last_seen} ago />}</Fact>
        <Fact name={t('de.grid')}>{x.grid && <a href={'/' + withFilter('', 'grid', x.grid)}>{x.grid}</a>}</Fact>
      </dl>
      <p>
        <a class="button" href={href(['devices', x.id])}>
          {t('map.openDevice')}
        </a>
      </p>
    </>
  )
}

function CaseCard({ c, onClose }: { c: Case; onClose: () => void }) {
  return (
    <>
      <CardHead title={text(c.title, c.id)} onClose={onClose} icon={<Icon name="case" />} />
      <p>
        <span class="tag">{t(`stage.${c.stage}`)}</span> {c.severity && <SeverityMark of={c.severity} quiet={c.back_to_normal} />}
      </p>
      <p>
        <Deadline of={c} long />
      </p>
      <dl class="tight">
        <Fact name={t('ca.number')}>{c.id}</Fact>
        <Fact name={t('ca.class')}>{className(c)}</Fact>
        <Fact name={t('ca.department')}>{c.department}</Fact>
        <Fact name={t('ca.grid')}>{c.grid}</Fact>
        <Fact name={t('ca.opened')}>
          <When at={c.opened} />
        </Fact>
      </dl>
      {c.back_to_normal && (c.alarms ?? []).length > 0 && (
        <p class="mark">
          <Icon name="check" size={16} /> {t('ca.normal')}
        </p>
      )}
      <p>
        <a class="button" href={href(['cases', c.id])}>
          {t('map.openCase')}
        </a>
      </p>
    </>
  )
}

/** ComponentCard is a component with its cases and devices. */
function ComponentCard({ x, onClose }: { x: Component; onClose: () => void }) {
  const cases = useLoad('cases about ' + x.id, (signal) => list<Case>('/cases', { component: x.id }, 20, signal))
  const devices = useLoad('devices at ' + x.id, (signal) => list<Device>('/devices', { component: x.id }, 20, signal))
  return (
    <>
      <CardHead title={x.name} onClose={onClose} icon={<Icon name="component" />} />
      <p>
        <span class="tag">{t(`co.${x.state}`)}</span> <span class="quiet">{text(state.classes.get(x.class)?.name, x.class)}</span>
      </p>
      <dl class="tight">
        <Fact name={t('map.code')}>{x.id}</Fact>
        <Fact name={t('wk.address')}>{x.address}</Fact>
        <Fact name={t('co.authority')}>{x.authority}</Fact>
        <Fact name={t('co.owner')}>{x.owner}</Fact>
        <Fact name={t('co.maintainer')}>{x.maintainer}</Fact>
        <Fact name={t('ca.grid')}>{x.grid && <a href={'/' + withFilter('', 'grid', x.grid)}>{x.grid}</a>}</Fact>
        <Fact name={t('co.remark')}>{x.remark}</Fact>
      </dl>
      <h3>
        {t('nav.cases')} <span class="quiet">{cases.data?.items.length ?? '–'}</span>
      </h3>
      {cases.error !== '' && <Failed error={cases.error} again={cases.again} />}
      <ul class="bare lines">
        {(cases.data?.items ?? []).map((c) => (
          <li key={c.id}>
            <span class="grow">
              <a class="title" href={href(['cases', c.id])}>
                {text(c.title, c.id)}
              </a>
              <span class="sub">
                {t(`stage.${c.stage}`)} · <Deadline of={c} />
              </span>
            </span>
          </li>
        ))}
      </ul>
      <h3>
        {t('nav.devices')} <span class="quiet">{devices.data?.items.length ?? '–'}</span>
      </h3>
      {devices.error !== '' && <Failed error={devices.error} again={devices.again} />}
      <ul class="bare lines">
        {(devices.data?.items ?? []).map((d) => (
          <li key={d.id}>
            <DomainIcon domain={domainOf(d.model)} />
            <span class="grow">
              <a href={href(['devices', d.id])}>{d.name || d.id}</a>
            </span>
            <StatusMark of={d.status} />
          </li>
        ))}
      </ul>
    </>
  )
}

function GridCard({ code, devices, cases, onClose }: { code: string; devices: Device[]; cases: Case[]; onClose: () => void }) {
  const here = devices.filter((d) => d.grid === code)
  const open = cases.filter((c) => c.grid === code)
  return (
    <>
      <CardHead title={t('map.grid', code)} onClose={onClose} />
      <h3>
        {t('map.casesHere')} <span class="quiet">{open.length}</span>
      </h3>
      <ul class="bare lines">
        {open.map((c) => (
          <li key={c.id}>
            <span class="grow">
              <a class="title" href={href(['cases', c.id])}>
                {text(c.title, c.id)}
              </a>
              <span class="sub">
                {t(`stage.${c.stage}`)} · <Deadline of={c} />
              </span>
            </span>
          </li>
        ))}
      </ul>
      <h3>
        {t('map.devicesHere')} <span class="quiet">{here.length}</span>
      </h3>
      <ul class="bare lines">
        {here.slice(0, 50).map((d) => (
          <li key={d.id}>
            <DomainIcon domain={domainOf(d.model)} />
            <span class="grow">
              <a href={href([], { device: d.id })}>{d.name || d.id}</a>
            </span>
            <StatusMark of={d.status} />
          </li>
        ))}
      </ul>
    </>
  )
}

function FeatureCard({ f, onClose }: { f: Extract<Picked, { kind: 'feature' }>; onClose: () => void }) {
  const p = f.properties
  const known0 = known('map.', f.layer)
  return (
    <>
      <CardHead title={String(p['label'] || known0)} onClose={onClose} />
      <dl class="tight">
        <Fact name={t('map.kind')}>{[known0, p['kind']].filter(Boolean).join(' · ')}</Fact>
        <Fact name={t('map.code')}>{p['code'] === undefined ? undefined : String(p['code'])}</Fact>
        {typeof p['area_m2'] === 'number' && <Fact name={t('map.area')}>{num(p['area_m2'])} m²</Fact>}
        {Object.entries(p)
          .filter(([k, v]) => !['kind', 'name', 'name_zh', 'name_en', 'code', 'label', 'area_m2', 'color'].includes(k) && v !== '' && ['string', 'number', 'boolean'].includes(typeof v))
          .map(([k, v]) => (
            <Fact key={k} name={known('prop.', k)}>
              {value(v)}
            </Fact>
          ))}
      </dl>
    </>
  )
}

