// Tables and maps that come as files: devices, components, unit grids and who
// looks after them.
import { useState } from 'preact/hooks'
import { query, upload } from '../api'
import { t } from '../i18n'
import { reason } from '../reasons'
import { Decide, Icon, Modal, Seen, useBusy } from '../ui'
import type { GridReport, ImportReport, TableReport } from '../types'

/** Told is what became of a file: one sentence, and what is wrong with which part of it. */
export interface Told {
  said: string
  lines: { where: string; text: string; wrong: boolean }[]
}

const shownLines = 200

/** where the lines of a report are in the file */
const lineOf = (line: number, id: string) => `${t('im.line', line)} ${id}`

/** toldTable says a report of a table; checked, that nothing was taken. */
export function toldTable(r: TableReport, checked = false): Told {
  const did = t('im.table', r.added, r.changed, r.same, r.failed) + (r.removed > 0 ? ' ' + t('im.removed', r.removed) : '')
  return {
    said: checked ? t('im.checked', did) : did,
    lines: r.lines.map((l) => ({ where: lineOf(l.line, l.id), text: reason(l.error ?? l.warning ?? ''), wrong: l.error !== undefined })),
  }
}

/** toldGrids says a report of unit grids. */
export function toldGrids(r: GridReport): Told {
  const did = t('im.grids', r.grids, r.crs, r.added, r.changed, r.same, r.ended)
  const line = (wrong: boolean) => (p: GridReport['errors'][number]) => ({ where: p.grids.slice(0, 5).join(t('c.comma')), text: reason(p.text), wrong })
  return {
    said: r.taken ? did : r.errors.length > 0 ? t('im.nothing', r.errors.length) : t('im.checked', did),
    lines: [...r.errors.map(line(true)), ...r.warnings.map(line(false))],
  }
}

/** toldDevices says a report of devices. */
export const toldDevices = (r: ImportReport): Told => ({
  said: t('im.did', r.created, r.updated, r.failed),
  lines: r.lines.filter((l) => !l.ok || l.warning).map((l) => ({ where: lineOf(l.line, l.id), text: reason(l.error ?? l.warning ?? ''), wrong: !l.ok })),
})

/** systems are the coordinates that files may be in; '' is what the file says. */
const systems = ['', 'WGS84', 'CGCS2000', 'GCJ-02'] as const

/** Options of an import: how a file is to be taken. */
export interface Options {
  crs?: string
  check?: boolean
  replace?: boolean
  force?: boolean
}

interface Props {
  title: string
  text: string
  example: string
  accept: string
  asks?: (keyof Options)[] // which options there are, in their order
  take: (file: File, o: Options) => Promise<Told>
  onClose: () => void
  onDone: () => void
}

/** ImportFile asks for a file and how to take it, and says what became of each part of it. A check leaves the form as it is, to go on. */
export function ImportFile({ title, text, example, accept, asks = [], take, onClose, onDone }: Props) {
  const [file, setFile] = useState<File>()
  const [o, setO] = useState<Options>({})
  const [got, setGot] = useState<Told>()
  const [taken, setTaken] = useState(false)
  const { busy, error, run } = useBusy()
  const change = (x: Options) => {
    setGot(undefined)
    setO({ ...o, ...x })
  }
  const submit = (e: Event) => {
    e.preventDefault()
    setGot(undefined)
    run(async () => {
      setGot(await take(file!, o))
      if (o.check) return
      setTaken(true)
      onDone()
    })
  }
  return (
    <Modal title={title} held={busy} onClose={onClose}>
      {taken && got !== undefined ? (
        <>
          <Report of={got} />
          <Seen does={t('c.close')} onClose={onClose} />
        </>
      ) : (
        <form onSubmit={submit}>
          <p>{text}</p>
          <pre class="code" tabIndex={0} aria-label={t('im.example')}>
            {example}
          </pre>
          <label>
            {t('im.file')}
            <input
              type="file"
              accept={accept}
              required
              autofocus
              onChange={(e) => {
                setGot(undefined)
                setFile(e.currentTarget.files?.[0])
              }}
            />
          </label>
          {asks.includes('crs') && (
            <label>
              {t('im.crs')}
              <select value={o.crs ?? ''} onChange={(e) => change({ crs: e.currentTarget.value })}>
                {systems.map((x) => (
                  <option key={x} value={x}>
                    {x || t('im.crsFile')}
                  </option>
                ))}
              </select>
            </label>
          )}
          {(['replace', 'force', 'check'] as const)
            .filter((k) => asks.includes(k))
            .map((k) => (
              <label key={k} class="check">
                <input type="checkbox" checked={o[k] ?? false} onChange={(e) => change({ [k]: e.currentTarget.checked })} />
                {t(`im.option.${k}`)}
              </label>
            ))}
          {got !== undefined && <Report of={got} />}
          <Decide wrong={error} busy={busy} does={t(o.check ? 'im.look' : 'im.do')} onClose={onClose} />
        </form>
      )}
    </Modal>
  )
}

function Report({ of: r }: { of: Told }) {
  return (
    <>
      <p role="status">{r.said}</p>
      {r.lines.length > 0 && (
        <ul class="bare lines">
          {r.lines.slice(0, shownLines).map((l, i) => (
            <li key={i}>
              <Icon name={l.wrong ? 'close' : 'warn'} size={16} />
              <span class="grow">
                {l.where}
                <span class="sub">
                  {!l.wrong && t('im.warning')} {l.text}
                </span>
              </span>
            </li>
          ))}
        </ul>
      )}
      {r.lines.length > shownLines && <p class="quiet small">{t('c.countOf', shownLines, r.lines.length)}</p>}
    </>
  )
}

interface Ends {
  onClose: () => void
  onDone: () => void
}

/** send uploads a file with its options. */
const send = <R,>(path: string, file: File, o: Options, type: string) => upload<R>(path + query({ ...o }), file, type)

/** Import registers and changes devices. */
export const Import = (ends: Ends) => (
  <ImportFile
    title={t('im.title')}
    text={t('im.text')}
    example={'id,name,model,lat,lon,token,attr.height\nsd-201,二楼烟感,smoke-detector,24.117,117.613,,2.8'}
    accept=".csv,text/csv"
    take={async (f) => toldDevices(await send<ImportReport>('/devices/import', f, {}, 'text/csv'))}
    {...ends}
  />
)

/** ImportComponents adds and changes components. */
export const ImportComponents = (ends: Ends) => (
  <ImportFile
    title={t('cp.import')}
    text={t('cp.importText')}
    example={'id,lat,lon,name,maintainer,state\n3506230101000001,24.117,117.613,上水井盖,供水公司,intact'}
    accept=".csv,.json,.geojson,text/csv,application/geo+json"
    asks={['crs', 'check']}
    take={async (f, o) => toldTable(await send<TableReport>('/components/import', f, o, 'text/csv'), o.check)}
    {...ends}
  />
)

/** ImportGrids adds, changes and ends unit grids. */
export const ImportGrids = (ends: Ends) => (
  <ImportFile
    title={t('gr.import')}
    text={t('gr.importText')}
    example={'{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"code":"350623100001001","name":"…"},\n  "geometry":{"type":"Polygon","coordinates":[[[117.6,24.1],[117.601,24.1],[117.601,24.101],[117.6,24.1]]]}}]}'}
    accept=".json,.geojson,application/geo+json"
    asks={['crs', 'replace', 'force', 'check']}
    take={async (f, o) => toldGrids(await send<GridReport>('/grids/import', f, o, 'application/geo+json'))}
    {...ends}
  />
)

/** ImportOfficers says who looks after which unit grids. */
export const ImportOfficers = (ends: Ends) => (
  <ImportFile
    title={t('gr.assign')}
    text={t('gr.assignText')}
    example={'id,name,officer,grids\nr-01,龙湖一片,officer-1,350623100001'}
    accept=".csv,.json,.geojson,text/csv,application/geo+json"
    asks={['replace']}
    take={async (f, o) => toldTable(await send<TableReport>('/responsibility-grids/import', f, o, 'text/csv'))}
    {...ends}
  />
)
