// Registering and changing many devices from a file.
import { useState } from 'preact/hooks'
import { upload } from '../api'
import { t } from '../i18n'
import { Decide, Modal, useBusy } from '../ui'
import type { ImportReport } from '../types'

/** Import asks for a CSV file, and says what became of each of its lines. */
export function Import({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [file, setFile] = useState<File>()
  const [got, setGot] = useState<ImportReport>()
  const { busy, error, run } = useBusy()
  const submit = (e: Event) => {
    e.preventDefault()
    run(async () => {
      setGot(await upload<ImportReport>('/devices/import', file!, 'text/csv'))
      onDone()
    })
  }
  const told = got?.lines.filter((l) => !l.ok || l.warning) ?? []
  return (
    <Modal title={t('im.title')} held={busy} onClose={onClose}>
      {got === undefined ? (
        <form onSubmit={submit}>
          <p>{t('im.text')}</p>
          <pre class="code" tabIndex={0} aria-label={t('im.example')}>
            {'id,name,model,lat,lon,token,attr.height\nsd-201,二楼烟感,smoke-detector,24.117,117.613,,2.8'}
          </pre>
          <label>
            {t('im.file')}
            <input type="file" accept=".csv,text/csv" required autofocus onChange={(e) => setFile(e.currentTarget.files?.[0])} />
          </label>
          <Decide wrong={error} busy={busy} does={t('im.do')} onClose={onClose} />
        </form>
      ) : (
        <>
          <p role="status">{t('im.did', got.created, got.updated, got.failed)}</p>
          {told.length > 0 && (
            <ul class="bare lines">
              {told.slice(0, 200).map((l) => (
                <li key={l.line}>
                  <span class="grow">
                    {t('im.line', l.line)} {l.id}
                    <span class="sub">{l.error ?? l.warning}</span>
                  </span>
                </li>
              ))}
            </ul>
          )}
          <footer>
            <button type="button" class="primary" onClick={onClose}>
              {t('c.close')}
            </button>
          </footer>
        </>
      )}
    </Modal>
  )
}
