// Messages that could not be used.
import { useMemo, useState } from 'preact/hooks'
import { get, query } from '../api'
import { useLoad } from '../app'
import { bytes, readable } from '../bytes'
import { known, t } from '../i18n'
import { refusal } from '../reasons'
import { Failed, Icon, When } from '../ui'
import { href } from '../url'
import type { DeadLetter, List } from '../types'
import { Bytes } from './messages'

/** Letter is one of them: why, when, and its bytes; with name, whose it is. */
export function Letter({ of: x, name }: { of: DeadLetter; name?: string }) {
  const b = useMemo(() => bytes(x.payload), [x.payload])
  const [open, setOpen] = useState(false)
  return (
    <>
      {name !== undefined && (
        <p>
          {x.device === '' ? <span class="quiet">{t('le.nobody')}</span> : <a href={href(['devices', x.device])}>{name}</a>}
        </p>
      )}
      <p>
        <Icon name="warn" size={15} /> {refusal(x.reason)}
      </p>
      <p class="sub">
        <When at={x.received} /> · {x.protocol} {x.topic} · {known('dl.stage.', x.stage)}
        {x.replayed_at && (
          <>
            {' · '}
            {t('dl.replayed')} <When at={x.replayed_at} />
          </>
        )}
      </p>
      <details onToggle={(e) => setOpen(e.currentTarget.open)}>
        <summary>
          {t('dl.bytes', b.length)} <code class="small">{readable(b.subarray(0, 80))}</code>
        </summary>
        {open && <Bytes of={b} />}
      </details>
    </>
  )
}

/** Rejected is the card of a device's messages that could not be used, the newest first. */
export function Rejected({ device }: { device: string }) {
  const loaded = useLoad('dead letters of ' + device, async (signal) => (await get<List<DeadLetter>>('/deadletters' + query({ device, limit: 20 }), signal)).items, 10_000)
  const all = loaded.data ?? []
  return (
    <section class="card">
      <div class="head small">
        <h2>{t('dl.title')}</h2>
        <a class="small" href={href(['ledger'], { device, rows: 'all' })}>
          {t('nav.ledger')}
        </a>
        {all.length > 0 && (
          <a class="small" href={href(['deadletters'], { device, open: 'all' })}>
            {t('dl.more')}
          </a>
        )}
      </div>
      {loaded.error !== '' && <Failed error={loaded.error} again={loaded.again} />}
      {loaded.data !== undefined && all.length === 0 && <p class="quiet">{t('dl.none')}</p>}
      <ul class="bare lines">
        {all.map((x) => (
          <li key={`${x.position} ${x.stage} ${x.received}`}>
            <div class="grow">
              <Letter of={x} />
            </div>
          </li>
        ))}
      </ul>
    </section>
  )
}
