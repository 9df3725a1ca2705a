// Swaps a handle for a JWT. nginx's auth_request does not see bodies; this does.

import crypto from 'crypto';

// The key of the cache.
function digest(r) {
    return crypto.createHash('sha256').update(r.variables.handle).digest('hex');
}

async function swap(r) {
    if (!r.variables.handle) {
        return refuse(r, 'Bearer');
    }
    const reply = await r.subrequest('/_introspect', { method: 'POST' });
    if (reply.status === 200 && reply.headersOut['Content-Type'] === 'application/jwt') {
        r.variables.jwt = reply.responseText;
        return r.return(204);
    }
    if (reply.status === 204) {
        return refuse(r, 'Bearer error="invalid_token"');
    }
    // No answer says nothing about the token.
    r.error(`the authorization server answered ${reply.status}`);
    r.return(500);
}

// RFC 6750 §3: a request without a usable token gets a challenge.
function refuse(r, challenge) {
    r.variables.challenge = challenge;
    r.return(401);
}

// RFC 9110 §7.8: 101 answers a request for an upgrade, and nginx forwards none. An error closes the
// connection.
function refuse_switch(r) {
    if (r.status === 101) {
        throw new Error('the API switched protocols unasked');
    }
}

export default { digest, swap, refuse_switch };
