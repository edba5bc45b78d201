// Who may sign in and as what, and which programs and apps have keys. For the
// administrator.
import { useEffect, useState } from 'preact/hooks'
import { enc, get, post, put, remove } from '../api'
import { filters, go, say, state, useLoad } from '../app'
import { fullTime } from '../format'
import { t } from '../i18n'
import { Choose, CopyBox, Empty, Filters, Icon, Listing, Modal, Search, Table, useBusy, Wait, When, Wrong } from '../ui'
import { withFilter } from '../url'
import { allRoles, type ApiKey, type List, type Role, type Session, type User } from '../types'
import { departments } from './act'

export function Users({ search }: { search: string }) {
  const q = new URLSearchParams(search)
  const apps = q.get('tab') === 'apps'
  const set = (name: string, value: string) => go('/users' + withFilter(search, name, value), true)
  return (
    <>
      <div class="head">
        <h1>{t('nav.users')}</h1>
        <div class="segments" role="group" aria-label={t('us.which')}>
          <button type="button" aria-pressed={!apps} onClick={() => set('tab', '')}>
            {t('us.people')}
          </button>
          <button type="button" aria-pressed={apps} onClick={() => set('tab', 'apps')}>
            {t('us.apps')}
          </button>
        </div>
        {!apps && (
          <button type="button" class="primary" aria-haspopup="dialog" onClick={() => set('user', '+')}>
            <Icon name="plus" size={16} /> {t('us.add')}
          </button>
        )}
      </div>
      {apps ? <Apps /> : <People search={search} />}
    </>
  )
}

function People({ search }: { search: string }) {
  const loaded = useLoad('users', (signal) => get<List<User>>('/users', signal))
  const all = loaded.data?.items ?? []
  const { asked, set, clear } = filters('/users', search, ['q', 'role'])
  const needle = asked.q.toLowerCase()
  const items = all.filter(
    (u) => (asked.role === '' || u.role === asked.role) && [u.name, u.title ?? '', u.department ?? ''].join('\n').toLowerCase().includes(needle),
  )
  const chosen = new URLSearchParams(search).get('user') ?? ''
  const one = all.find((u) => u.name === chosen)
  const close = () => set('user', '')
  if (loaded.data === undefined) return <Wait of={loaded} />
  return (
    <>
      <Filters clear={clear}>
        <Search value={asked.q} label={t('us.search')} onChange={(v) => set('q', v)} />
        <Choose label={t('us.role')} any={t('us.anyRole')} value={asked.role} of={allRoles.map((r) => [r, t(`role.${r}`)])} onChange={(v) => set('role', v)} />
      </Filters>
      {items.length === 0 ? (
        <Empty>{t('us.none')}</Empty>
      ) : (
        <Table heads={[t('us.name'), t('us.role'), t('us.where'), t('us.created')]}>
          {items.map((u) => (
            <tr role="row" key={u.name}>
              <td role="cell" class="c-main">
                <button type="button" class="link" aria-haspopup="dialog" onClick={() => set('user', u.name)}>
                  {u.title || u.name}
                </button>
                <span class="sub">{u.name}</span>
                {u.disabled && <span class="tag">{t('us.disabled')}</span>}
              </td>
              <td role="cell">{t(`role.${u.role}`)}</td>
              <td role="cell" class={u.department || u.area ? '' : 'none'}>
                {[u.department, u.area].filter(Boolean).join(' · ') || '–'}
              </td>
              <td role="cell" class="c-age">
                <When at={u.created} />
              </td>
            </tr>
          ))}
        </Table>
      )}
      {chosen === '+' && <Edit onClose={close} onDone={loaded.again} />}
      {one !== undefined && <One key={one.name} of={one} onClose={close} onDone={loaded.again} />}
    </>
  )
}

/** Edit adds a user, or changes one: of. */
function Edit({ of: u, onClose, onDone }: { of?: User; onClose: () => void; onDone: () => void }) {
  const [name, setName] = useState('')
  const [title, setTitle] = useState(u?.title ?? '')
  const [role, setRole] = useState<Role>(u?.role ?? 'viewer')
  const [department, setDepartment] = useState(u?.department ?? '')
  const [area, setArea] = useState(u?.area ?? '')
  const [password, setPassword] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  useEffect(() => setWrong(''), [name, department, password, role])
  const program = role === 'service'
  const confined = !['admin', 'engineer', 'vendor', 'citizen'].includes(role)
  const submit = (e: Event) => {
    e.preventDefault()
    if (u === undefined && name.trim() === '') return setWrong(t('us.badName'))
    if (role === 'department' && department.trim() === '') return setWrong(t('us.badDepartment'))
    if (u === undefined && !program && [...password].length < 8) return setWrong(t('set.passwordShort'))
    const body = { title: title.trim() || undefined, role, department: role === 'department' ? department.trim() : undefined, area: confined ? area.trim() : '' }
    run(async () => {
      if (u === undefined) await post<User>('/users', { name: name.trim(), ...body, area: body.area || undefined, password: program ? undefined : password })
      else await put<User>('/users/' + enc(u.name), body)
      say(t('us.saved', u?.name ?? name.trim()))
      onDone()
      if (u === undefined) onClose()
    })
  }
  const form = (
    <form onSubmit={submit}>
      {u === undefined && (
        <label>
          {t('in.user')}
          <input autofocus value={name} maxLength={64} autocomplete="off" autocapitalize="off" spellcheck={false} onInput={(e) => setName(e.currentTarget.value)} />
        </label>
      )}
      <label>
        {t('us.title')}
        <input value={title} maxLength={100} autocomplete="off" onInput={(e) => setTitle(e.currentTarget.value)} />
      </label>
      <label>
        {t('us.role')}
        <select value={role} disabled={u?.role === 'service'} onChange={(e) => setRole(e.currentTarget.value as Role)}>
          {allRoles
            .filter((r) => u === undefined || u.role === 'service' || r !== 'service')
            .map((r) => (
              <option key={r} value={r}>
                {t(`role.${r}`)}
              </option>
            ))}
        </select>
        <span class="sub">{t(`us.may.${role}`)}</span>
      </label>
      {role === 'department' && (
        <label>
          {t('ca.department')}
          <input list="departments" value={department} maxLength={100} onInput={(e) => setDepartment(e.currentTarget.value)} />
          <datalist id="departments">
            {departments().map((d) => (
              <option key={d} value={d} />
            ))}
          </datalist>
        </label>
      )}
      {confined && (
        <label>
          {t('us.area')}
          <input inputMode="numeric" value={area} maxLength={12} placeholder="350623100" onInput={(e) => setArea(e.currentTarget.value)} />
          <span class="sub">{t('us.areaText')}</span>
        </label>
      )}
      {u === undefined && !program && (
        <label>
          {t('us.firstPassword')}
          <input type="password" autocomplete="new-password" value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
        </label>
      )}
      <Wrong text={wrong || error} />
      <footer>
        {u === undefined && (
          <button type="button" onClick={onClose}>
            {t('c.cancel')}
          </button>
        )}
        <button type="submit" class="primary" disabled={busy}>
          {u === undefined ? t('us.add') : t('us.save')}
        </button>
      </footer>
    </form>
  )
  if (u !== undefined) return form
  return (
    <Modal title={t('us.add')} onClose={onClose}>
      {form}
    </Modal>
  )
}

/** One is the drawer of a user: role, password, sign-ins and tokens, the end. */
function One({ of: u, onClose, onDone }: { of: User; onClose: () => void; onDone: () => void }) {
  const sessions = useLoad('sessions ' + u.name, (signal) => get<List<Session>>(`/users/${enc(u.name)}/sessions`, signal))
  const [password, setPassword] = useState('')
  const [label, setLabel] = useState('')
  const [token, setToken] = useState('')
  const [sure, setSure] = useState(false)
  const { busy, error, run } = useBusy()
  const self = u.name === state.user?.name
  const program = u.role === 'service'
  const reset = (e: Event) => {
    e.preventDefault()
    run(async () => {
      await post(`/users/${enc(u.name)}/password`, { password })
      setPassword('')
      say(t('us.passwordDone', u.name))
      sessions.again()
    })
  }
  const issue = (e: Event) => {
    e.preventDefault()
    run(async () => {
      const got = await post<{ token: string }>(`/users/${enc(u.name)}/tokens`, { label: label.trim() })
      setLabel('')
      setToken(got.token)
      sessions.again()
    })
  }
  const end = (s: Session) =>
    run(async () => {
      await remove(`/users/${enc(u.name)}/sessions/${enc(s.id)}`)
      sessions.again()
    })
  const disable = (disabled: boolean) =>
    run(async () => {
      await put<User>('/users/' + enc(u.name), { title: u.title, role: u.role, department: u.department, area: u.area ?? '', disabled })
      say(t(disabled ? 'us.disableDone' : 'us.enableDone', u.name))
      sessions.again()
      onDone()
    })
  const del = () =>
    run(async () => {
      await remove('/users/' + enc(u.name))
      say(t('us.deleted', u.name))
      onClose()
      onDone()
    })
  const all = sessions.data?.items ?? []
  return (
    <Modal title={u.title ? `${u.title} (${u.name})` : u.name} kind="drawer" held={busy || token !== ''} onClose={onClose}>
      <Edit of={u} onClose={onClose} onDone={onDone} />
      <Wrong text={error} />
      {!program && !self && (
        <section>
          <h3>{t('us.reset')}</h3>
          <form onSubmit={reset}>
            <input class="hidden" type="text" autocomplete="username" value={u.name} readOnly tabIndex={-1} aria-hidden="true" />
            <label>
              {t('set.passwordNew')}
              <input type="password" autocomplete="new-password" minLength={8} required value={password} onInput={(e) => setPassword(e.currentTarget.value)} />
              <span class="sub">{t('us.resetText')}</span>
            </label>
            <footer>
              <button type="submit" disabled={busy}>
                {t('us.reset')}
              </button>
            </footer>
          </form>
        </section>
      )}
      {program && (
        <section>
          <h3>{t('us.newToken')}</h3>
          {token !== '' && (
            <div class="note" role="status">
              <p>{t('us.tokenOnce')}</p>
              <CopyBox text={token} label={t('de.token')} />
              <button type="button" onClick={() => setToken('')}>
                {t('de.tokenDone')}
              </button>
            </div>
          )}
          <form onSubmit={issue}>
            <label>
              {t('us.label')}
              <input value={label} maxLength={100} required placeholder="grafana" onInput={(e) => setLabel(e.currentTarget.value)} />
            </label>
            <footer>
              <button type="submit" disabled={busy}>
                {t('us.newToken')}
              </button>
            </footer>
          </form>
        </section>
      )}
      <section>
        <h3>{program ? t('us.tokens') : t('us.sessions')}</h3>
        <Listing of={sessions} n={all.length} none={t('us.noSessions')}>
          <ul class="bare lines">
            {all.map((s) => (
              <li key={s.id}>
                <span class="grow">
                  {s.label || t('us.signedIn')}
                  <span class="sub">
                    {fullTime(s.created)} – {s.expires === undefined ? t('us.forever') : fullTime(s.expires)}
                  </span>
                </span>
                <button type="button" disabled={busy} onClick={() => end(s)}>
                  {t('us.end')}
                </button>
              </li>
            ))}
          </ul>
        </Listing>
      </section>
      {!self && (
        <section>
          <h3>{t(u.disabled ? 'us.enable' : 'us.disable')}</h3>
          <p class="quiet small">{t(u.disabled ? 'us.enableText' : 'us.disableText')}</p>
          <p class="buttons">
            <button type="button" disabled={busy} onClick={() => disable(!u.disabled)}>
              {t(u.disabled ? 'us.enable' : 'us.disable')}
            </button>
          </p>
        </section>
      )}
      {!self && (
        <section>
          <h3>{t('us.delete')}</h3>
          <p class="quiet small">{t('us.deleteText')}</p>
          <p class="buttons">
            <button type="button" disabled={busy} onClick={() => (sure ? del() : setSure(true))}>
              {sure ? t('us.deleteSure', u.name) : t('us.delete')}
            </button>
            {sure && (
              <button type="button" onClick={() => setSure(false)}>
                {t('c.cancel')}
              </button>
            )}
          </p>
        </section>
      )}
      <p>
        <a href={'/audit?user=' + enc(u.name)}>{t('us.audit')}</a>
      </p>
    </Modal>
  )
}

/** Apps are those that may report cases by Open311. */
function Apps() {
  const loaded = useLoad('api keys', (signal) => get<List<ApiKey>>('/api-keys', signal))
  const [name, setName] = useState('')
  const [contact, setContact] = useState('')
  const [perMinute, setPerMinute] = useState('60')
  const [key, setKey] = useState('')
  const [revoking, setRevoking] = useState('')
  const { busy, error, run } = useBusy()
  const add = (e: Event) => {
    e.preventDefault()
    run(async () => {
      const got = await post<{ key: string }>('/api-keys', { name: name.trim(), contact: contact.trim() || undefined, per_minute: Number(perMinute) || undefined })
      setKey(got.key)
      setName('')
      setContact('')
      loaded.again()
    })
  }
  const revoke = (k: ApiKey) =>
    run(async () => {
      await remove('/api-keys/' + enc(k.name))
      setRevoking('')
      say(t('us.revoked', k.name))
      loaded.again()
    })
  const all = loaded.data?.items ?? []
  return (
    <div class="columns">
      <section class="card">
        <h2>{t('us.apps')}</h2>
        <p class="quiet">{t('us.appsText')}</p>
        <Listing of={loaded} n={all.length} none={t('us.noApps')}>
          <ul class="bare lines">
            {all.map((k) => (
              <li key={k.id}>
                <span class="grow">
                  <b>{k.name}</b>
                  <span class="sub">{[k.contact, t('us.perMinute', k.per_minute), fullTime(k.created)].filter(Boolean).join(' · ')}</span>
                </span>
                <button type="button" disabled={busy} onClick={() => (revoking === k.name ? revoke(k) : setRevoking(k.name))}>
                  {revoking === k.name ? t('us.revokeSure', k.name) : t('us.revoke')}
                </button>
              </li>
            ))}
          </ul>
        </Listing>
      </section>
      <section class="card">
        <h2>{t('us.addApp')}</h2>
        {key !== '' && (
          <div class="note" role="status">
            <p>{t('us.keyOnce')}</p>
            <CopyBox text={key} label={t('us.key')} />
          </div>
        )}
        <form onSubmit={add}>
          <label>
            {t('us.app')}
            <input value={name} maxLength={64} required onInput={(e) => setName(e.currentTarget.value)} />
          </label>
          <label>
            {t('us.contact')}
            <input value={contact} maxLength={200} onInput={(e) => setContact(e.currentTarget.value)} />
          </label>
          <label>
            {t('us.rate')}
            <input type="number" min="1" max="6000" value={perMinute} onInput={(e) => setPerMinute(e.currentTarget.value)} />
          </label>
          <Wrong text={error} />
          <button type="submit" class="primary" disabled={busy}>
            {t('us.addApp')}
          </button>
        </form>
      </section>
    </div>
  )
}
