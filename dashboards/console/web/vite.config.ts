import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'

const dist = join(import.meta.dirname, '../dist')

// precompress writes x.br next to each larger text asset. A .br of the build
// before that still unpacks to the same bytes is kept, so that another version
// of the brotli library does not make the committed files look stale.
function precompress(): Plugin {
  const before = new Map<string, Buffer>()
  const files = () => readdirSync(dist, { recursive: true, encoding: 'utf8' })
  return {
    name: 'precompress',
    apply: 'build',
    buildStart() {
      try {
        for (const f of files()) if (f.endsWith('.br')) before.set(f, readFileSync(join(dist, f)))
      } catch {
        // the first build: there is no dist yet
      }
    },
    closeBundle() {
      for (const f of files()) {
        if (!/\.(js|mjs|css|html|svg)$/.test(f)) continue
        const raw = readFileSync(join(dist, f))
        if (raw.length < 1024) continue
        const old = before.get(f + '.br')
        const same = old !== undefined && unpacked(old)?.equals(raw)
        const packed = same
          ? old
          : brotliCompressSync(raw, {
              params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: raw.length },
            })
        writeFileSync(join(dist, f + '.br'), packed)
      }
    },
  }
}

// mapAhead tells the page where the map's code is, so that its page can load it
// while all else is asked for: it is the largest part.
function mapAhead(): Plugin {
  return {
    name: 'map-ahead',
    apply: 'build',
    transformIndexHtml: {
      order: 'post',
      handler(_, { filename, bundle }) {
        const map = Object.values(bundle ?? {}).find((c) => c.type === 'chunk' && c.name === 'mapview')
        if (!filename.endsWith('index.html')) return []
        if (map === undefined) throw new Error('no chunk of the map')
        return [{ tag: 'meta', attrs: { name: 'map', content: '/' + map.fileName }, injectTo: 'head' }]
      },
    },
  }
}

function unpacked(b: Buffer): Buffer | undefined {
  try {
    return brotliDecompressSync(b)
  } catch {
    return undefined
  }
}

export default defineConfig({
  build: {
    outDir: dist,
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1200,
    rollupOptions: { input: { index: join(import.meta.dirname, 'index.html'), report: join(import.meta.dirname, 'report.html') } },
  },
  plugins: [mapAhead(), precompress()],
  test: { include: ['test/**/*.test.ts'], environment: 'node', testTimeout: 60_000 },
} as Parameters<typeof defineConfig>[0])
