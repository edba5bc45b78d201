// The audit: who changed what, when, from where, and how it was before and
// after. Nothing can be changed here.
import { changes, outcome } from '../audit'
import { filters, useList } from '../app'
import { fromLocalInput, fullTime, localInput } from '../format'
import { known, t, tables } from '../i18n'
import { Choose, Filters, Icon, Paged, Search } from '../ui'
import type { AuditEntry } from '../types'

const page = 200
const actions = Object.keys(tables.en).filter((k) => k.startsWith('op.')).map((k) => k.slice(3))
const narrowing = ['user', 'action', 'target', 'address', 'from', 'to'] as const

export function Audit({ search }: { search: string }) {
  const { asked, set, clear } = filters('/audit', search, narrowing)
  for (const name of ['from', 'to'] as const) if (Number.isNaN(Date.parse(asked[name]))) asked[name] = ''
  const loaded = useList<AuditEntry>('/audit', asked, page)
  const when = (name: 'from' | 'to') => (
    <label class="inline">
      {t(`au.${name}`)}
      <input
        type="datetime-local"
        value={asked[name] === '' ? '' : localInput(Date.parse(asked[name])).slice(0, 16)}
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
      <Filters clear={clear}>
        <Choose label={t('au.action')} any={t('au.anyAction')} value={asked.action} of={actions.map((a) => [a, known('op.', a)])} onChange={(v) => set('action', v)} />
        {(['user', 'target', 'address'] as const).map((f) => (
          <Search key={f} value={asked[f]} label={t(`au.${f}`)} onChange={(v) => set(f, v)} />
        ))}
        {when('from')}
        {when('to')}
      </Filters>
      <Paged of={loaded} n={loaded.items.length} none={t('au.none')}>
        <ul class="bare audit">
          {loaded.items.map((e) => (
            <Entry key={e.id} of={e} set={set} />
          ))}
        </ul>
      </Paged>
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
