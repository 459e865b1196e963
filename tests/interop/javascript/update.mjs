// An update by tuf-js, an independent TUF client, from a bundle that is served over HTTP: node update.mjs ROOT URL MEMORY
//
// Prints a JSON object: `targets`, each path with its length or why it cannot be had, or `refused`, why the update was.
import fs from 'node:fs'
import path from 'node:path'
import { Updater } from 'tuf-js'

const [root, url, memory] = process.argv.slice(2)
const targetDir = path.join(memory, 'targets')
fs.mkdirSync(targetDir, { recursive: true })
if (!fs.existsSync(path.join(memory, 'root.json'))) fs.copyFileSync(root, path.join(memory, 'root.json'))

async function download(updater, name) {
  try {
    const place = await updater.downloadTarget(await updater.getTargetInfo(name), path.join(targetDir, encodeURIComponent(name)))
    return fs.statSync(place).size
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`
  }
}

async function update() {
  const places = { metadataBaseUrl: `${url}/metadata`, targetBaseUrl: `${url}/targets` }
  const updater = new Updater({ metadataDir: memory, targetDir, ...places, config: { fetchRetries: 0 } })
  await updater.refresh()
  const { signed } = JSON.parse(fs.readFileSync(path.join(memory, 'targets.json')))
  const targets = {}
  for (const name of Object.keys(signed.targets)) targets[name] = await download(updater, name)
  return { targets }
}

console.log(JSON.stringify(await update().catch((error) => ({ refused: `${error.constructor.name}: ${error.message}` }))))
