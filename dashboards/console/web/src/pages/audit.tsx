// The audit: who changed what, when, from where, and how it was before and
// after. Nothing can be changed here.
import { useState } from 'preact/hooks'
import { list } from '../api'
import { changes, outcome } from '../audit'
import { go, useLoad } from '../app'
import { fromLocalInput, fullTime, localInput } from '../format'
import { known, t, tables } from '../i18n'
import { Empty, Failed, Icon, Loading, Search } from '../ui'
import { withFilter } from '../url'
import type { AuditEntry } from '../types'

const page = 200
const actions = Object.keys(tables.en).filter((k) => k.startsWith('op.')).map((k) => k.slice(3))
const filters = ['user', 'action', 'target', 'address', 'from', 'to'] as const

export function Audit({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const [most, setMost] = useState(page)
  const params = Object.fromEntries(filters.map((f) => [f, q.get(f) ?? '']))
  const loaded = useLoad(`audit ${JSON.stringify(params)} ${most}`, (signal) => list<AuditEntry>('/audit', params, most, signal))
  const set = (name: string, value: string) => {
    setMost(page)
    go('/audit' + withFilter(search, name, value), true)
  }
  const when = (name: 'from' | 'to') => (
    <label class="inline">
      {t(`au.${name}`)}
      <input
        type="datetime-local"
        value={q.has(name) ? localInput(Date.parse(q.get(name)!)).slice(0, 16) : ''}
        onChange={(e) => {
          const at = fromLocalInput(e.currentTarget.value)
          set(name, Number.isNaN(at) ? '' : new Date(at).toISOString())
        }}
      />
    </label>
  )
  return (
    <>
      <div class="head">
        <h1>{t('nav.audit')}</h1>
      </div>
      <div class="filters" role="group" aria-label={t('c.filter')}>
        <select aria-label={t('au.action')} value={q.get('action') ?? ''} onChange={(e) => set('action', e.currentTarget.value)}>
          <option value="">{t('au.anyAction')}</option>
          {actions.map((a) => (
            <option key={a} value={a}>
              {known('op.', a)}
            </option>
          ))}
        </select>
        {(['user', 'target', 'address'] as const).map((f) => (
          <Search key={f} value={q.get(f) ?? ''} label={t(`au.${f}`)} onChange={(v) => set(f, v)} />
        ))}
        {when('from')}
        {when('to')}
        {filters.some((f) => q.has(f)) && (
          <button type="button" class="link" onClick={() => go('/audit', true)}>
            {t('c.clearFilters')}
          </button>
        )}
      </div>
      {loaded.data === undefined ? (
        loaded.error ? <Failed error={loaded.error} again={loaded.again} /> : <Loading />
      ) : loaded.data.items.length === 0 ? (
        <Empty>{t('au.none')}</Empty>
      ) : (
        <>
          <ul class="bare audit">
            {loaded.data.items.map((e) => (
              <Entry key={e.id} of={e} set={set} />
            ))}
          </ul>
          {loaded.data.more && (
            <p class="foot">
              <button type="button" onClick={() => setMost(most + page)}>
                {t('c.more')}
              </button>
            </p>
          )}
        </>
      )}
    </>
  )
}

function Entry({ of: e, set }: { of: AuditEntry; set: (filter: string, value: string) => void }) {
  const end = outcome(e.status)
  const all = changes(e.before, e.after)
  const sent = e.detail === '{}' ? '' : e.detail
  const filter = (name: string, value: string, shown = value) => (
    <button type="button" class="link" title={t('au.only')} onClick={() => set(name, value)}>
      {shown}
    </button>
  )
  return (
    <li class="card">
      <p class="brief">
        <time dateTime={e.at}>{fullTime(e.at)}</time>
        <span>
          {filter('user', e.user)} {e.role && <span class="quiet">{known('role.', e.role)}</span>}
        </span>
        <b>{filter('action', e.action, known('op.', e.action))}</b>
        <span class={'mark ' + (end === 'done' ? 'quiet' : 'bad')}>
          <Icon name={end === 'done' ? 'check' : 'warn'} size={14} /> {t(`au.${end}`)} {e.status > 0 && e.status}
        </span>
        <span class="quiet">
          {t('au.fromWhere')} {filter('address', e.address)}
        </span>
      </p>
      <p class="sub">{filter('target', e.target)}</p>
      {(all.length > 0 || sent) && (
        <details>
          <summary>{all.length > 0 ? t('au.changed', all.length) : t('au.sent')}</summary>
          {all.length > 0 && (
            <table class="plain">
              <thead>
                <tr>
                  <th scope="col">{t('au.field')}</th>
                  <th scope="col">{t('au.before')}</th>
                  <th scope="col">{t('au.after')}</th>
                </tr>
              </thead>
              <tbody>
                {all.map((c) => (
                  <tr key={c.field}>
                    <th scope="row">{c.field}</th>
                    <td>{c.before ?? '–'}</td>
                    <td>{c.after ?? '–'}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          {sent && (
            <pre class="code" tabIndex={0} aria-label={t('au.sent')}>
              {sent}
            </pre>
          )}
        </details>
      )}
    </li>
  )
}
