// The alarm load: what alarms demanded of the operators (EEMUA 191, ISA-18.2),
// what to do about it, and the way from each figure to its alarms.
import { useState } from 'preact/hooks'
import { get, query } from '../api'
import { go, useLive, useLoad, useNames } from '../app'
import { Bars } from '../bars'
import { fullTime, now, num, span, time } from '../format'
import { t, text } from '../i18n'
import { advice, percent, worst } from '../load'
import { Icon, SeverityMark, Wait, When } from '../ui'
import { href, withFilter } from '../url'
import { priorities, type Alarm, type AlarmLoad } from '../types'
import { Why } from './whydrawer'

const ranges: Record<string, number> = { '8h': 8, '24h': 24, '7d': 7 * 24, '30d': 30 * 24 }
const rangeNames = ['8h', '24h', '7d', '30d'] as const
const interval = 600_000

export function Load({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const range = rangeNames.find((r) => r === q.get('range')) ?? '24h'
  const loaded = useLoad('load ' + range, (signal) => {
    const to = now()
    const from = Math.floor((to - ranges[range]! * 3_600_000) / interval) * interval
    return get<AlarmLoad>('/alarms/load' + query({ from: new Date(from).toISOString(), to: new Date(to).toISOString() }), signal)
  })
  const why = q.get('why')
  const l = loaded.data
  const set = (name: string, value: string) => go('/alarms/load' + withFilter(search, name, value), true)
  return (
    <>
      <p class="crumb">
        <a href="/alarms">
          <Icon name="back" size={14} /> {t('al.title')}
        </a>
      </p>
      <div class="head">
        <h1>{t('nav.load')}</h1>
        <div class="segments" role="group" aria-label={t('de.range')}>
          {rangeNames.map((r) => (
            <button type="button" key={r} aria-pressed={r === range} onClick={() => set('range', r === '24h' ? '' : r)}>
              {t(`lo.r.${r}`)}
            </button>
          ))}
        </div>
        {l !== undefined && (
          <span class="quiet small">
            {fullTime(l.from)} – {fullTime(l.to)} · {t('lo.operators', l.operators)}
          </span>
        )}
      </div>
      {l === undefined ? <Wait of={loaded} /> : <Figures l={l} onWhy={(id) => set('why', id)} />}
      {why !== null && <Why id={why} alarm={undefined} onClose={() => set('why', '')} onOther={(id) => set('why', id)} />}
    </>
  )
}

/** during is the address of the alarms that were raised from one time to another. */
const during = (from: string | number, to: string | number, more: Record<string, string> = {}) =>
  href(['alarms'], { from: new Date(from).toISOString(), to: new Date(to).toISOString(), ...more })

function Figures({ l, onWhy }: { l: AlarmLoad; onWhy: (id: string) => void }) {
  const o = l.per_operator_10min
  const all = during(l.from, l.to)
  const floods = l.floods ?? []
  const chattering = l.chattering ?? []
  const stale = l.stale ?? []
  return (
    <>
      <section class="card">
        <h2>{t('lo.do')}</h2>
        <ul class="bare advice">
          {advice(l).map((a) => (
            <li key={a.text}>
              <Icon name={a.good ? 'check' : 'warn'} /> <span>{a.text}</span>
            </li>
          ))}
        </ul>
      </section>
      <div class="figures">
        <Figure name={t('lo.mean')} value={num(o.mean)} about={t('lo.goal', num(o.goal))} over={o.mean > o.goal} to={all} />
        <Figure
          name={t('lo.peak')}
          value={num(o.peak)}
          about={o.peak_at === undefined ? t('lo.nonePeak') : time(o.peak_at)}
          over={o.peak > 10}
          to={o.peak_at === undefined ? all : during(o.peak_at, Date.parse(o.peak_at) + interval)}
        />
        <Figure name={t('lo.over')} value={percent(o.over_goal_share) + ' %'} about={t('lo.overOf')} over={o.over_goal_share > 0.1} to={all} />
        <Figure name={t('lo.floods')} value={String(floods.length)} about={t('lo.floodsAre')} over={floods.length > 0} to="#floods" />
        <Figure name={t('lo.chattering')} value={String(chattering.length)} about={t('lo.chatteringAre')} over={chattering.length > 0} to="#chattering" />
        <Figure name={t('lo.stale')} value={String(stale.length)} about={t('lo.staleAre')} over={stale.length > 0} to="#stale" />
      </div>
      <section class="card">
        <h2>
          <a class="title" href={all}>
            {t('lo.alarms', l.alarms)}
          </a>{' '}
          {l.work_orders > 0 && <span class="quiet small">{t('lo.orders', l.work_orders)}</span>}
        </h2>
        <Bars
          bars={worst(l)}
          names={[t('lo.chart')]}
          label={t('lo.chart')}
          goal={{ value: o.goal * l.operators, text: t('lo.goalLine', num(o.goal * l.operators)) }}
          to={during}
        />
        <p class="quiet small">{t('lo.chartText')}</p>
      </section>
      <div class="columns even">
        <section class="card">
          <h2>{t('lo.top')}</h2>
          {(l.top_rules ?? []).length === 0 ? (
            <p class="quiet">{t('lo.noneTop')}</p>
          ) : (
            <ol class="shares">
              {l.top_rules!.map((r) => (
                <li key={r.rule}>
                  <Share share={r.share} />
                  <a class="title" href={during(l.from, l.to, { rule: r.rule })}>
                    {text(r.title, r.rule)}
                  </a>{' '}
                  <b>{r.alarms}</b> <span class="quiet">{percent(r.share)} %</span>{' '}
                  <a class="small" href={href(['rules', r.rule])}>
                    {t('lo.rule')}
                  </a>
                </li>
              ))}
            </ol>
          )}
        </section>
        <section class="card">
          <h2>{t('lo.priorities')}</h2>
          <ul class="bare shares">
            {priorities.map((p) => {
              const x = l.priorities[p]
              return (
                <li key={p}>
                  <Share share={x.share} target={x.target} />
                  <a class="title" href={during(l.from, l.to, { severity: p === 'minor' ? 'minor,warning,indeterminate' : p })}>
                    {t(`lo.p.${p}`)}
                  </a>{' '}
                  <b>{x.alarms}</b>{' '}
                  <span class="quiet">
                    {percent(x.share)} % · {t('lo.target', percent(x.target))}
                  </span>
                </li>
              )
            })}
          </ul>
        </section>
      </div>
      <section class="card" id="floods" tabIndex={-1}>
        <h2>{t('lo.floods')}</h2>
        {floods.length === 0 ? (
          <p class="quiet">{t('lo.noneFloods')}</p>
        ) : (
          <ul class="bare">
            {floods.map((f) => (
              <li key={f.from}>
                <a href={during(f.from, f.to)}>
                  {time(f.from)} – {time(f.to)}
                </a>{' '}
                {t('lo.flood', f.alarms, span(Date.parse(f.to) - Date.parse(f.from)))}
              </li>
            ))}
          </ul>
        )}
      </section>
      <section class="card" id="chattering" tabIndex={-1}>
        <h2>{t('lo.chattering')}</h2>
        {chattering.length === 0 ? (
          <p class="quiet">{t('lo.noneChattering')}</p>
        ) : (
          <ul class="bare">
            {chattering.map((c) => (
              <li key={c.rule + c.entity}>
                <a href={during(l.from, l.to, { rule: c.rule, device: c.device })}>
                  {text(c.title, c.rule)} · {c.entity}
                </a>{' '}
                {t('lo.chatter', c.count, c.most_per_minute)}
              </li>
            ))}
          </ul>
        )}
      </section>
      <Stale of={stale} onWhy={onWhy} />
    </>
  )
}

const few = 20

function Stale({ of, onWhy }: { of: Alarm[]; onWhy: (id: string) => void }) {
  const [over, setOver] = useState<Set<string>>(new Set())
  const [shown, setShown] = useState(few)
  useLive<Alarm>('alarm', (a) => a.state === 'cleared' && setOver((x) => new Set([...x, a.id])))
  const items = of.filter((a) => !over.has(a.id))
  const name = useNames(items.slice(0, shown).map((a) => a.device))
  return (
    <section class="card" id="stale" tabIndex={-1}>
      <h2>{t('lo.stale')}</h2>
      {items.length === 0 ? (
        <p class="quiet">{t('lo.noneStale')}</p>
      ) : (
        <ul class="bare lines">
          {items.slice(0, shown).map((a) => (
            <li key={a.id}>
              <SeverityMark of={a.severity} quiet />
              <span class="grow">
                {text(a.title, a.rule)}
                <span class="sub">
                  <a href={href(['devices', a.device])} title={a.device}>
                    {name(a.device)}
                  </a>{' '}
                  · <When at={a.raised_at} ago />
                </span>
              </span>
              <button type="button" aria-haspopup="dialog" onClick={() => onWhy(a.id)}>
                {t('al.why')}
              </button>
            </li>
          ))}
        </ul>
      )}
      {items.length > shown && (
        <button type="button" onClick={() => setShown(shown + 10 * few)}>
          {t('c.more')}
        </button>
      )}
    </section>
  )
}

function Figure({ name, value, about, over, to }: { name: string; value: string; about: string; over: boolean; to: string }) {
  return (
    <a class="figure" href={to}>
      <span class="quiet">{name}</span>
      <b>
        {value} {over && <Icon name="warn" size={16} />}
      </b>
      <span class={over ? 'over' : 'quiet'}>{over ? t('lo.tooMuch', about) : about}</span>
    </a>
  )
}

/** Share is a bar with how much of the whole something is, and how much it should be. */
function Share({ share, target }: { share: number; target?: number }) {
  return (
    <span class="share" aria-hidden="true">
      <i style={{ width: share * 100 + '%' }} />
      {target !== undefined && <u style={{ left: target * 100 + '%' }} />}
    </span>
  )
}
