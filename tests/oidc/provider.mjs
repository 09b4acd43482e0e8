// A certified OpenID provider on loopback for the tests: one client, any user name, and pages to log in and to agree.
// Settings come as JSON in the first argument.
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const provider = new Provider(`http://127.0.0.1:${settings.port}`, {
  clients: [{
    client_id: 'goma',
    client_secret: 's3cret of the gateway',
    redirect_uris: [settings.redirect],
    post_logout_redirect_uris: ['http://gateway.test/bye'],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  }],
  claims: { openid: ['sub'], email: ['email'] },
  cookies: { keys: ['a key for tests'] },
  features: { devInteractions: { enabled: true }, introspection: { enabled: true }, revocation: { enabled: true } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@shop.test` }) }),
  pkce: { methods: ['S256'], required: () => true },
  rotateRefreshToken: () => true,
  ttl: {
    AccessToken: settings.ttl, AuthorizationCode: 60, Grant: 3600, IdToken: 60, Interaction: 600, RefreshToken: 3600,
    Session: 3600,
  },
});
let refreshed = 0;
provider.on('grant.success', (ctx) => { if (ctx.oidc.params.grant_type === 'refresh_token') refreshed += 1; });
provider.use(async (ctx, next) => {
  if (ctx.path === '/refreshed') ctx.body = String(refreshed);
  else await next();
});
provider.listen(settings.port, '127.0.0.1', () => console.log('ready'));
