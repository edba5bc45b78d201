import { useState } from 'preact/hooks'
import { ApiError, get, post } from '../api'
import { enter, state, useLoad } from '../app'
import { t } from '../i18n'
import { Settings } from '../settings'
import { useBusy, Wrong } from '../ui'
import type { Info, User } from '../types'

/** SignIn asks for name and password. */
export function SignIn() {
  const [user, setUser] = useState('')
  const [password, setPassword] = useState('')
  const [wrong, setWrong] = useState('')
  const { busy, error, run } = useBusy()
  const info = useLoad('sign-in', (signal) => get<Info>('/info', signal))
  const submit = (e: Event) => {
    e.preventDefault()
    setWrong('')
    run(async () => {
      try {
        const r = await post<{ user: User }>('/login', { user, password })
        await enter(r.user)
      } catch (e) {
        if (!(e instanceof ApiError) || e.status !== 401) throw e
        setWrong(t('in.wrong'))
        setPassword('')
      }
    })
  }
  return (
    <main class="signin" id="main">
      <form onSubmit={submit}>
        <img src="/favicon.svg" alt="" width="44" height="44" />
        <h1>{t('app.name')}</h1>
        <p class="quiet">{t('app.sub')}</p>
        {state.expired && (
          <p class="note" role="status">
            {t('in.expired')}
          </p>
        )}
        <label>
          {t('in.user')}
          <input
            name="username"
            autocomplete="username"
            autocapitalize="off"
            spellcheck={false}
            required
            autofocus
            value={user}
            onInput={(e) => setUser(e.currentTarget.value)}
          />
        </label>
        <label>
          {t('in.password')}
          <input
            name="password"
            type="password"
            autocomplete="current-password"
            required
            value={password}
            onInput={(e) => setPassword(e.currentTarget.value)}
          />
        </label>
        <Wrong text={wrong || error} />
        <button type="submit" class="primary" disabled={busy}>
          {t('in.go')}
        </button>
        <p class="quiet small">{t('in.hint')}</p>
        {info.data?.citizens && (
          <p>
            <a href="/report" target="_self">
              {t('in.report')}
            </a>
          </p>
        )}
      </form>
      <Settings plain />
    </main>
  )
}
