// The map of the county: what is going on and where, with the list of what
// needs attention beside it. What is selected lives in the address.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { enc, get, list } from '../api'
import { go, upsert, useLive, useLiveTogether, useLoad, useTick } from '../app'
import { t } from '../i18n'
import { domainOf, Icon, SeverityIcon, Wait } from '../ui'
import { href } from '../url'
import { openStages, severities, type Alarm, type Case, type Component, type Device, type Severity, type Summary } from '../types'
import type { Picked, Spot } from '../mapview'
import { byWeight, inView } from './alarms'
import { byUrgency } from './cases'
import { Canvas } from './mapcanvas'
import { Attention, CaseCard, ComponentCard, DeviceCard, FeatureCard, GridCard } from './mapcards'

export function MapPage({ search }: { search: string }) {
  useTick(5000)
  const q = new URLSearchParams(search)
  const before = useRef(none)
  const devices = useLoad('map devices', async (signal) => {
    const all = (before.current = spots(await get<DeviceShapes>('/map/devices', signal), before.current))
    return { all }
  })
  const alarms = useLoad('map alarms', (signal) => list<Alarm>('/alarms', { state: 'active' }, 5000, signal))
  const cases = useLoad('map cases', async (signal) => {
    const [a, b] = await Promise.all([
      list<Case>('/cases', { open: 'true' }, 3000, signal),
      list<Case>('/cases', { open: 'true', work_orders: 'true' }, 3000, signal),
    ])
    return [...a.items, ...b.items]
  })
  useLiveTogether<Alarm>('alarm', (as) => alarms.change((l) => ({ ...l, items: as.reduce(upsert, l.items) })))
  useLiveTogether<Case>('case', (cs) => cases.change((l) => cs.reduce(upsert, l)))
  useLiveTogether<Device>('device', (ds) => devices.change(({ all }) => {
    for (const d of ds) {
      if (d.location === undefined) all.delete(d.id) // or the device is gone
      else all.set(d.id, { id: d.id, name: d.name, model: d.model, domain: domainOf(d.model), status: d.status, grid: d.grid, at: d.location })
    }
    return { all }
  }))
  // Who fell silent is also asked for now and then; seldom when there are many.
  const count = devices.data?.all.size ?? 0
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
  const selectedDevice = devices.data?.all.get(device)
  const selectedCase = (cases.data ?? []).find((c) => c.id === caseID)
  return (
    <>
      <h1 class="hidden">{t('map.title')}</h1>
      <Strip open={alarms.data === undefined ? undefined : open} />
      <div class="mapside">
        <Canvas
          search={search}
          devices={devices.data}
          alarms={open}
          cases={openCases}
          picked={selectedDevice?.at ?? selectedCase?.location ?? component.data?.location}
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
              <Wait of={component} />
            ) : (
              <ComponentCard key={componentID} x={component.data} onClose={() => select(undefined)} />
            )
          ) : grid !== '' ? (
            <GridCard code={grid} devices={devices.data?.all ?? none} cases={openCases} onClose={() => select(undefined)} />
          ) : feature !== undefined ? (
            <FeatureCard f={feature} onClose={() => select(undefined)} />
          ) : (
            <Attention
              alarms={open}
              cases={openCases}
              devices={devices.data?.all ?? none}
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

type DeviceShapes = GeoJSON.FeatureCollection<GeoJSON.Point, Omit<Spot, 'at' | 'domain'>>

const none = new Map<string, Spot>()

/** spots reads what the API says; who is as before stays the same, so that only the others are drawn again. */
function spots(shapes: DeviceShapes, before: Map<string, Spot>): Map<string, Spot> {
  const all = new Map<string, Spot>()
  for (const { geometry: g, properties: p } of shapes.features) {
    const [lon, lat] = g.coordinates as [number, number]
    const was = before.get(p.id)
    const same = was !== undefined && was.name === p.name && was.model === p.model && was.status === p.status && was.grid === p.grid && was.at.lat === lat && was.at.lon === lon
    all.set(p.id, same ? was : { ...p, domain: domainOf(p.model), at: { lat, lon } })
  }
  return all
}

/** Strip is the county in numbers: quiet numbers are grey. Of the alarms it counts those that call for a person, as the list of them does. */
function Strip({ open }: { open: Alarm[] | undefined }) {
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
  const by = (x: Severity) => (open ?? []).filter((a) => a.severity === x).length
  const present = severities.filter((x) => by(x) > 0)
  const unacked = (open ?? []).filter((a) => !a.acked).length
  return (
    <section class="strip" aria-label={t('sum.label')}>
      <a href="/alarms">
        <span class="label">{t('sum.alarms')}</span>
        <b>{open?.length ?? '–'}</b>
        {open === undefined ? null : present.length === 0 ? (
          <span class="quiet">{t('sum.quiet')}</span>
        ) : (
          <span class="sevs">
            {present.map((x) => (
              <span key={x} class="mark">
                <SeverityIcon of={x} size={16} /> {t(`sev.${x}`)} {by(x)}
              </span>
            ))}
          </span>
        )}
        {unacked > 0 && <strong>{t('sum.unacked', unacked)}</strong>}
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
