// The connections to brokers elsewhere: whether they are there, and what became of what came.
import { get } from '../api'
import { useLoad } from '../app'
import { num } from '../format'
import { known, t } from '../i18n'
import { reason } from '../reasons'
import { Icon, Listing, When } from '../ui'
import type { Link, List } from '../types'
import { Sections } from './sections'

export function Uplinks() {
  const loaded = useLoad('uplinks', async (signal) => (await get<List<Link>>('/uplinks', signal)).items, 10_000)
  const all = loaded.data ?? []
  return (
    <>
      <div class="head">
        <h1>{t('nav.uplinks')}</h1>
      </div>
      <Sections at="uplinks" />
      <p class="lead quiet">{t('up.text')}</p>
      <Listing of={loaded} n={all.length} none={t('up.none')}>
        {all.map((l) => (
          <section class="card" key={l.name}>
            <div class="head small">
              <h2>{l.name}</h2>
              <span class="quiet">{l.url}</span>
            </div>
            <p>
              <Icon name={l.connected ? 'check' : 'lost'} size={16} /> {t(l.connected ? 'up.connected' : 'up.away')} {t('up.since')} <When at={l.since} />
              {l.last_message !== undefined && (
                <>
                  {' · '}
                  {t('up.last')} <When at={l.last_message} ago />
                </>
              )}
            </p>
            {l.error !== undefined && <p class={l.connected ? 'quiet' : 'wrong'}>{reason(l.error)}</p>}
            <div class="progress">
              {[...Object.entries(l.messages), ['waiting', l.waiting] as const].map(([result, n]) => (
                <span key={result} class="term">
                  <b class="num">{num(n)}</b>
                  <span class="sub">{known('up.', result)}</span>
                </span>
              ))}
            </div>
          </section>
        ))}
      </Listing>
    </>
  )
}
