// A client on the TypeScript SDK: node client.mjs SERVER HOW CERTIFICATE KEY
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { UnauthorizedError, auth } from '@modelcontextprotocol/sdk/client/auth.js'

const [server, how, certificate, key] = process.argv.slice(2)
const redirectUrl = 'http://127.0.0.1:40123/callback'
const metadata = {
  client_name: 'TypeScript client',
  redirect_uris: [redirectUrl],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
}

// What the SDK sends, in order, for the assertions below.
const sent = []
const recording = async (url, init) => {
  const response = await fetch(url, init)
  const { pathname, search } = new URL(url)
  sent.push(`${init?.method ?? 'GET'} ${pathname}${search} ${response.status}`)
  return response
}

/** Where the metadata document of this client is. */
async function publish() {
  const tls = { cert: readFileSync(certificate), key: readFileSync(key) }
  const host = createServer(tls, (request, response) => {
    const client_id = `https://127.0.0.1:${host.address().port}/client.json`
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ client_id, ...metadata }))
  })
  await new Promise(listening => host.listen(0, '127.0.0.1', listening))
  host.unref()
  return `https://127.0.0.1:${host.address().port}/client.json`
}

class Provider {
  redirectUrl = redirectUrl
  clientMetadata = metadata
  clientMetadataUrl = undefined
  stored = {}
  authorizations = []
  state() { return 'a-state' }
  clientInformation() { return this.stored.client }
  saveClientInformation(client) { this.stored.client = client }
  tokens() { return this.stored.tokens }
  saveTokens(tokens) { this.stored.tokens = tokens }
  saveCodeVerifier(verifier) { this.stored.verifier = verifier }
  codeVerifier() { return this.stored.verifier }
  invalidateCredentials(scope) {
    if (scope !== 'verifier') delete this.stored.tokens
    if (scope === 'all') delete this.stored.client
  }
  // Instead of a browser.
  async redirectToAuthorization(url) {
    this.authorizations.push(url)
    const response = await fetch(url, { redirect: 'manual' })
    assert.ok([302, 303].includes(response.status), await response.text())
    const to = new URL(response.headers.get('location'))
    assert.equal(to.origin + to.pathname, redirectUrl)
    assert.equal(to.searchParams.get('state'), 'a-state')
    assert.equal(to.searchParams.get('iss'), new URL(server).origin)
    this.code = to.searchParams.get('code')
  }
}

const provider = new Provider()
if (how === 'document') provider.clientMetadataUrl = await publish()
if (how === 'registered') provider.stored.client = { client_id: 'notes-cli' }

async function connected() {
  const client = new Client({ name: 'test', version: '1' })
  const options = { authProvider: provider, fetch: recording }
  const transport = new StreamableHTTPClientTransport(new URL(server), options)
  await client.connect(transport)
  return { client, transport }
}
const call = async (client, name, args = {}) => {
  const result = await client.callTool({ name, arguments: args })
  assert.ok(!result.isError, JSON.stringify(result))
  return result.content[0]?.text ?? ''
}

// From the first 401 to a code.
const first = new StreamableHTTPClientTransport(new URL(server), { authProvider: provider, fetch: recording })
await assert.rejects(new Client({ name: 'test', version: '1' }).connect(first), UnauthorizedError)
const asked = provider.authorizations.at(-1).searchParams
assert.equal(asked.get('resource'), server)
assert.equal(asked.get('scope'), 'notes:read')
assert.equal(asked.get('code_challenge_method'), 'S256')
await first.finishAuth(provider.code)
assert.equal(provider.stored.tokens.scope, 'notes:read')
const id = provider.stored.client.client_id
assert.equal(how, id === 'notes-cli' ? 'registered' : id.startsWith('https://') ? 'document' : 'dynamic')
assert.equal(sent.filter(line => line.startsWith('POST /register')).length, how === 'dynamic' ? 1 : 0)
assert.ok(sent.includes('GET /.well-known/oauth-protected-resource/mcp 200'), sent.join('\n'))

// A call.
let { client } = await connected()
assert.doesNotMatch(await call(client, 'list_notes'), new RegExp(`milk for ${how}`))

// A step-up. This SDK tries its refresh token first, which brings no more scope, and gives up; so the app asks
// for a new authorization, as it would have asked its user.
const denied = await client.callTool({ name: 'add_note', arguments: { text: 'milk' } }).catch(error => error)
assert.equal(denied.code, 403, String(denied))
await client.close()
delete provider.stored.tokens
const scope = 'notes:read notes:write'
assert.equal(await auth(provider, { serverUrl: server, scope, fetchFn: recording }), 'REDIRECT')
const authorizationCode = provider.code
assert.equal(await auth(provider, { serverUrl: server, scope, authorizationCode, fetchFn: recording }), 'AUTHORIZED')
assert.equal(provider.stored.tokens.scope, scope)
;({ client } = await connected())
assert.equal(await call(client, 'add_note', { text: `milk for ${how}` }), 'added')

// A refresh: the access token is of no use any more.
const before = provider.stored.tokens
provider.stored.tokens = { ...before, access_token: 'expired' }
const authorizations = provider.authorizations.length
assert.match(await call(client, 'list_notes'), new RegExp(`milk for ${how}`))
assert.notEqual(provider.stored.tokens.refresh_token, before.refresh_token)
assert.equal(provider.authorizations.length, authorizations, 'nobody had to sign in')
await client.close()
console.log(`typescript ${how}: ok`)
process.exit(0)
