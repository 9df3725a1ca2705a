// The shop in a browser: a public client with PKCE (RFC 7636). All tabs share the tokens in `localStorage`.
// A script of somebody else could read them there, so the page allows no script but this one
// (Content-Security-Policy).
'use strict';

const CLIENT = 'shop';
const SCOPE = 'orders:read orders:write';
const CALLBACK = `${location.origin}/callback`;
const element = (id) => document.getElementById(id);

// --- Tokens -----------------------------------------------------------------------------------

const saved = () => JSON.parse(localStorage.getItem('tokens'));

function keep(tokens) {
  localStorage.setItem('tokens', JSON.stringify(tokens));
  return tokens;
}

function forget() {
  localStorage.removeItem('tokens');
  return null;
}

const post = (path, form) => fetch(path, { method: 'POST', body: new URLSearchParams(form) });

// New tokens in place of `old`, or null if the session has ended. One tab at a time: a tab that has waited
// takes what the first one got. If its `localStorage` lags behind, it sends the old refresh token again,
// which the server accepts for 30 seconds: the retry window.
function renew(old) {
  return navigator.locks.request('tokens', async () => {
    const tokens = saved();
    if (!tokens || tokens.access_token !== old.access_token) return tokens;
    const form = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token, client_id: CLIENT };
    const answer = await post('/token', form);
    if (answer.ok) return keep({ ...tokens, ...await answer.json() });
    if (answer.status === 400) return forget(); // `invalid_grant`: logged out, or banned
    throw new Error('The shop does not answer. Try again.');
  });
}

// Calls the API, with new tokens if it refuses the old ones. Null if the session has ended.
async function call(path, options = {}) {
  let tokens = saved();
  for (let round = 0; tokens && round < 2; round++) {
    const headers = { ...options.headers, Authorization: `Bearer ${tokens.access_token}` };
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return answer;
    if (answer.status !== 401) throw new Error('The shop does not answer. Try again.');
    tokens = await renew(tokens);
  }
  return forget();
}

// --- Signing in and out -----------------------------------------------------------------------

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function signIn() {
  const [state, verifier] = [random(), random()];
  // Each tab has its own.
  sessionStorage.setItem('request', JSON.stringify({ state, verifier }));
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
  location.assign(`/authorize?${new URLSearchParams({
    response_type: 'code', client_id: CLIENT, redirect_uri: CALLBACK, scope: SCOPE, state,
    code_challenge: base64url(new Uint8Array(hash)), code_challenge_method: 'S256',
  })}`);
}

// Redeems the code with which the authorization server has sent the user back.
async function callback() {
  const answer = new URLSearchParams(location.search);
  const request = JSON.parse(sessionStorage.getItem('request'));
  sessionStorage.removeItem('request');
  history.replaceState(null, '', '/');
  // RFC 9207: it comes from this server, and answers this tab.
  if (!request || answer.get('state') !== request.state || answer.get('iss') !== location.origin) {
    throw new Error('This answer belongs to another sign-in. Try again.');
  }
  if (!answer.has('code')) throw new Error('You were not signed in.');
  const form = {
    grant_type: 'authorization_code', code: answer.get('code'), redirect_uri: CALLBACK,
    client_id: CLIENT, code_verifier: request.verifier,
  };
  const tokens = await post('/token', form);
  if (!tokens.ok) throw new Error('You were not signed in.');
  keep(await tokens.json());
}

async function signOut() {
  const tokens = saved();
  forget();
  if (tokens) await post('/revoke', { token: tokens.refresh_token, client_id: CLIENT });
  await show();
}

// --- The page ---------------------------------------------------------------------------------

async function show() {
  const answer = await call('/orders');
  element('in').hidden = !answer;
  element('out').hidden = Boolean(answer);
  element('sign-out').hidden = !answer;
  if (!answer) return;
  element('problem').hidden = true;
  const items = (await answer.json()).map((order) => {
    const item = document.createElement('li');
    item.textContent = order;
    return item;
  });
  element('orders').replaceChildren(...items);
}

async function order(item) {
  const headers = { 'Content-Type': 'application/json' };
  await call('/orders', { method: 'POST', headers, body: JSON.stringify(item) });
  await show();
}

// Runs an action; says what went wrong.
const safely = (action) => (event) => Promise.resolve(action(event)).catch((error) => {
  element('out').hidden = false;
  element('problem').textContent = error.message;
  element('problem').hidden = false;
});

element('sign-in').onclick = safely(signIn);
element('sign-out').onclick = safely(signOut);
for (const button of document.querySelectorAll('.order')) {
  button.onclick = safely(() => order(button.textContent));
}
// Another tab has signed in or out, or renewed the tokens.
window.addEventListener('storage', safely(show));
safely(async () => {
  try {
    if (location.pathname === '/callback') await callback();
  } finally {
    await show();
  }
})();
