//! OAuth 2.0 and OpenID Connect: users log in at a provider. Spec middlewares §5.8 with the design's rulings, RFC 6749,
//! RFC 7636 (PKCE), RFC 9700 (best current practice).
//!
//! A login sends the browser to the provider and takes its answer on the path of `redirectUrl`, which the gateway's table
//! leads to this route wherever it lies. The session is sealed into Goma's cookies with a key made of `clientSecret`, so
//! that replicas and restarts share it and nobody else can make one; or it is sealed in Redis, and the browser has a ticket.
//!
//! | file | holds |
//! |---|---|
//! | `flow` | what happens to a request |
//! | `callback`, `logout` | the provider's answer, the end of a session |
//! | `login` | a login under way: `state`, `nonce`, PKCE, the way back |
//! | `session` | a session and its cookies |
//! | `store` | sessions in Redis |
//! | `party` | one client at one provider: logging in, checking |
//! | `renewal` | refreshing, once for all who need it |
//! | `provider` | where the provider is: named ones, settings, discovery |
//! | `tokens`, `claims` | calls to the provider, and what it says of a user |
//! | `id_token`, `keys` | who signed a token, and is it for us |
//! | `settings`, `check` | the settings, and what is wrong with them |
//! | `seal`, `cookies`, `memory`, `flights` | tools of these |

mod callback;
mod check;
mod claims;
mod cookies;
mod flights;
mod flow;
mod id_token;
mod keys;
mod login;
mod logout;
mod memory;
mod party;
mod provider;
mod renewal;
mod seal;
mod session;
mod settings;
mod store;
mod tokens;

pub use party::Parties;
pub use settings::OAuth;
