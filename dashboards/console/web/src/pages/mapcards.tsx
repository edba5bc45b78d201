// What stands beside the map: what needs somebody, or what was picked.
import type { ComponentChildren } from 'preact'
import { enc, get, list } from '../api'
import { state, useLoad, whereOf } from '../app'
import { num, value } from '../format'
import { className, known, t, text } from '../i18n'
import { Deadline, DomainIcon, domainOf, Due, Failed, Icon, Loading, modelTitle, SeverityIcon, SeverityMark, StatusMark, When } from '../ui'
import { href, withFilter } from '../url'
import type { Alarm, Case, Component, Device } from '../types'
import type { Picked, Spot } from '../mapview'
import { Fact } from './cases'
import { Brief } from './devices'

/** Attention lists what needs somebody. */
export function Attention({
  alarms,
  cases,
  devices,
  error,
  loading,
  again,
}: {
  alarms: Alarm[]
  cases: Case[]
  devices: Map<string, Spot>
  error: string
  loading: boolean
  again: () => void
}) {
  if (loading) return error ? <Failed error={error} again={again} /> : <Loading />
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
              const d = devices.get(a.device)
              return (
                <li key={a.id}>
                  <SeverityIcon of={a.severity} />
                  <span class="grow">
                    <a
                      class="title"
                      href={d === undefined ? href(['alarms'], { q: a.device }) : href([], { device: a.device, at: `${d.at.lon},${d.at.lat}` })}
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
              <CaseLine key={c.id} of={c} sign to={c.location === undefined ? href(['cases', c.id]) : href([], { case: c.id, at: `${c.location.lon},${c.location.lat}` })} />
            ))}
          </ul>
          {cases.length > 20 && <a href="/cases">{t('c.more')}</a>}
        </section>
      )}
    </>
  )
}

/** CaseLine is a case in a list. */
const CaseLine = ({ of: c, to, sign = false }: { of: Case; to: string; sign?: boolean }) => (
  <li>
    {sign && <Icon name="case" size={18} />}
    <span class="grow">
      <a class="title" href={to}>
        {text(c.title, c.id)}
      </a>
      <span class="sub">
        {whereOf(c) && whereOf(c) + ' · '}
        {t(`stage.${c.stage}`)} · {c.deadline === undefined ? <Due of={c} /> : <Deadline of={c} />}
      </span>
    </span>
  </li>
)

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

export function DeviceCard({ d, alarms, onClose }: { d: Spot; alarms: Alarm[]; onClose: () => void }) {
  // What the map knows may be minutes old: ask for this one.
  const fresh = useLoad('device ' + d.id, (signal) => get<Device>('/devices/' + enc(d.id), signal), 10_000)
  const x = fresh.data ?? d
  const mine = alarms.filter((a) => a.device === d.id || a.members?.includes(d.id))
  return (
    <>
      <CardHead title={x.name || x.id} onClose={onClose} icon={<DomainIcon domain={domainOf(x.model)} size={20} />} />
      <p>
        <StatusMark of={x.status} disabled={fresh.data?.disabled} />{' '}
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
      {fresh.data !== undefined && <Brief d={fresh.data} />}
      <dl class="tight">
        <Fact name={t('de.lastSeen')}>{fresh.data?.last_seen && <When at={fresh.data.last_seen} ago />}</Fact>
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

export function CaseCard({ c, onClose }: { c: Case; onClose: () => void }) {
  return (
    <>
      <CardHead title={text(c.title, c.id)} onClose={onClose} icon={<Icon name="case" />} />
      <p>
        <span class="tag">{t(`stage.${c.stage}`)}</span> {c.severity && <SeverityMark of={c.severity} quiet={c.back_to_normal} />}
      </p>
      <p>
        {c.deadline === undefined ? <Due of={c} long /> : <Deadline of={c} long />}
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

/** Part is a part of a card: how many there are, and why they could not be loaded. */
function Part({ name, n, error = '', again = () => {}, children }: { name: string; n: number | undefined; error?: string; again?: () => void; children: ComponentChildren }) {
  return (
    <>
      <h3>
        {name} <span class="quiet">{n ?? '–'}</span>
      </h3>
      {error !== '' && <Failed error={error} again={again} />}
      <ul class="bare lines">{children}</ul>
    </>
  )
}

function TheirCases({ of, ...part }: { name: string; of: Case[] | undefined; error?: string; again?: () => void }) {
  return (
    <Part n={of?.length} {...part}>
      {of?.map((c) => (
        <CaseLine key={c.id} of={c} to={href(['cases', c.id])} />
      ))}
    </Part>
  )
}

function TheirDevices({ of, to, ...part }: { name: string; of: (Pick<Device, 'id' | 'name' | 'model' | 'status'> & { disabled?: boolean })[] | undefined; to: (id: string) => string; error?: string; again?: () => void }) {
  return (
    <Part n={of?.length} {...part}>
      {of?.slice(0, 50).map((d) => (
        <li key={d.id}>
          <DomainIcon domain={domainOf(d.model)} />
          <span class="grow">
            <a href={to(d.id)}>{d.name || d.id}</a>
          </span>
          <StatusMark of={d.status} disabled={d.disabled} />
        </li>
      ))}
    </Part>
  )
}

/** ComponentCard is a component with its cases and devices. */
export function ComponentCard({ x, onClose }: { x: Component; onClose: () => void }) {
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
      <TheirCases name={t('nav.cases')} of={cases.data?.items} error={cases.error} again={cases.again} />
      <TheirDevices name={t('nav.devices')} of={devices.data?.items} error={devices.error} again={devices.again} to={(id) => href(['devices', id])} />
    </>
  )
}

export function GridCard({ code, devices, cases, onClose }: { code: string; devices: Map<string, Spot>; cases: Case[]; onClose: () => void }) {
  return (
    <>
      <CardHead title={t('map.grid', code)} onClose={onClose} />
      <TheirCases name={t('map.casesHere')} of={cases.filter((c) => c.grid === code)} />
      <TheirDevices name={t('map.devicesHere')} of={[...devices.values()].filter((d) => d.grid === code)} to={(device) => href([], { device })} />
    </>
  )
}

export function FeatureCard({ f, onClose }: { f: Extract<Picked, { kind: 'feature' }>; onClose: () => void }) {
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

