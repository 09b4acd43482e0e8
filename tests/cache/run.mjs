// Runs the public conformance suite for HTTP caches (http-cache-tests) against a gateway.
//
// Prints `port N` of its origin, reads the base URL of the gateway that stands before it, and prints a line of JSON for each
// test: its id, its kind, and true or what went wrong.

import http from 'node:http'
import { createInterface } from 'node:readline/promises'

const suite = new URL('node_modules/http-cache-tests/', import.meta.url)
const part = async path => await import(new URL(path, suite))
const baseUrl = 'http://localhost/'
const config = (await part('server/handle-config.mjs')).default
const state = (await part('server/handle-state.mjs')).default
const test = (await part('server/handle-test.mjs')).default
const { runTests, getResults } = await part('client/runner.mjs')
const tests = (await part('tests/index.mjs')).default
const fetch = (await import(new URL('node_modules/node-fetch/lib/index.mjs', import.meta.url))).default

const server = http.createServer((request, response) => {
  const segments = new URL(request.url, baseUrl).pathname.split('/').slice(1)
  const handler = { config, state, test }[segments.shift()]
  if (handler) handler(segments, request, response)
  else response.writeHead(404).end()
})
server.keepAliveTimeout = 60000
server.listen(0, '127.0.0.1', async () => {
  console.log(`port ${server.address().port}`)
  const base = await createInterface({ input: process.stdin }).question('')
  const log = console.log
  console.log = () => {}
  // A few at a time: the suite tells time in seconds, and the machine may be busy.
  await runTests(tests, fetch, false, base.trim(), Number(process.argv[2] || 30))
  const results = getResults()
  for (const { id: suite, tests: all } of tests) {
    for (const { id, kind = 'required', browser_only: browser } of all) {
      if (!browser) log(JSON.stringify({ suite, id, kind, result: results[id] }))
    }
  }
  process.exit(0)
})
