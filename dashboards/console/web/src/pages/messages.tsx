// What a device says, as it comes: the bytes, and what was made of them.
import { useState } from 'preact/hooks'
import { useLive } from '../app'
import { bytes, dump, readable } from '../bytes'
import { fullTime, measured, num, time } from '../format'
import { t, text } from '../i18n'
import { refusal } from '../reasons'
import { Icon } from '../ui'
import type { Device, Latest, Model } from '../types'

/** Message is a message of a device, an event of its stream. */
export interface Message {
  received: string
  protocol: string
  topic: string
  bytes: number
  payload: string // base64, its beginning
  readings: ({ metric: string } & Latest)[]
  attributes?: Record<string, unknown>
  duplicates: number
  rejected: number
  quarantined: number
  reason?: string
  missed: number
}

const kept = 30

/** Messages are the newest messages of a device since its page was opened. */
export function Messages({ d, model }: { d: Device; model: Model | undefined }) {
  const [all, setAll] = useState<(Message & { n: number })[]>([])
  useLive<Message & { device: string }>('message', (m) => {
    if (m.device === d.id) setAll((x) => [{ ...m, n: (x[0]?.n ?? 0) + 1 }, ...x].slice(0, kept))
  })
  return (
    <section class="card">
      <h2>{t('de.messages')}</h2>
      {all.length === 0 && <p class="quiet">{t('de.messagesNone')}</p>}
      <ul class="bare messages">
        {all.map((m) => (
          <li key={m.n}>
            <details>
              <summary>
                <time class="quiet" dateTime={m.received}>
                  {time(m.received)}
                </time>{' '}
                <span class="brief">
                  {m.readings.map((r, i) => (
                    <span key={i} title={fullTime(r.time)}>
                      <span class="quiet">{text(model?.metrics.find((x) => x.name === r.metric)?.title, r.metric)}</span>{' '}
                      {measured(r.value, r.metric, model)}
                    </span>
                  ))}
                  {m.attributes !== undefined && <span class="quiet">{t('me.attributes', Object.keys(m.attributes).join(', '))}</span>}
                  {m.duplicates > 0 && <span class="quiet">{t('me.duplicates', m.duplicates)}</span>}
                </span>
                {m.rejected + m.quarantined > 0 && (
                  <strong class="mark">
                    <Icon name="warn" size={15} /> {t('me.rejected', m.rejected + m.quarantined)}
                  </strong>
                )}
                {m.missed > 0 && <span class="quiet">{t('me.missed', m.missed)}</span>}
              </summary>
              {m.reason !== undefined && <p>{refusal(m.reason)}</p>}
              <p class="quiet small">
                {m.protocol} · {m.topic} · {t('dl.bytes', m.bytes)}
              </p>
              <Bytes of={bytes(m.payload)} />
            </details>
          </li>
        ))}
      </ul>
    </section>
  )
}

const most = 4096 // bytes that are shown in hexadecimal

/** Bytes are the bytes of a message, as text and in hexadecimal, the first when there are many. */
export function Bytes({ of }: { of: Uint8Array }) {
  return (
    <>
      <pre class="code" tabIndex={0} aria-label={t('me.text')}>
        {readable(of)}
      </pre>
      <pre class="code" tabIndex={0} aria-label={t('me.hex')}>
        {dump(of.subarray(0, most))}
      </pre>
      {of.length > most && <p class="quiet small">{t('me.first', num(most), num(of.length))}</p>}
    </>
  )
}
