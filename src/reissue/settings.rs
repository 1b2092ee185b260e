//! The settings of the reissuers over an HTTP client: those that all of them have, those of issuers
//! with a contract of their own, and those of the grants of OAuth.
//!
//! Macros, as a user should find them at the reissuer itself, and in one chain with its own.

/// What every reissuer over an HTTP client has in common: its constructor, and the settings of its
/// [`Exchange`](super::exchange::Exchange). Takes the issuer's contract, and the fields that the
/// reissuer has besides its `exchange`, with their first values.
macro_rules! client_settings {
    ($reissuer:ident, $contract:expr => { $($field:ident: $value:expr),* }) => {
        impl $reissuer {
            /// A reissuer that posts to this address: `https`, or this machine.
            ///
            /// `client` is any tower service whose requests have a body that can be made of
            /// [`Bytes`](::bytes::Bytes). It is cloned for each reissue. It should neither follow
            /// redirects, which would carry secrets elsewhere, nor keep cookies.
            pub fn post<C, B, RB>(uri: impl AsRef<str>, client: C) -> Self
            where
                C: ::tower_service::Service<::http::Request<B>, Response = ::http::Response<RB>>
                    + Clone
                    + Send
                    + 'static,
                C::Error: Into<$crate::error::BoxError>,
                C::Future: Send,
                B: From<::bytes::Bytes> + Send + 'static,
                RB: ::http_body::Body + Send + 'static,
                RB::Error: Into<$crate::error::BoxError>,
            {
                Self {
                    exchange: super::exchange::Exchange::post(uri.as_ref(), client, $contract),
                    $($field: $value),*
                }
            }

            /// Asks this function first about every answer that brings no tokens: every status but a
            /// 2xx, and a 2xx with an error code in place of an access token. What it returns
            /// counts, whatever the status; `None` leaves the answer to the rules of this reissuer. A
            /// [transient](crate::ReissueError::transient) error without a delay of its own gets
            /// the answer's `Retry-After`.
            ///
            /// It runs inside the reissue, so it should not block. If it panics, the outcome of
            /// the reissue is [unknown](crate::ReissueError::unknown).
            ///
            /// ```
            /// # use bytes::Bytes;
            /// # use http_body_util::Full;
            /// # use tower::service_fn;
            #[doc = concat!("use tower_token_refresh::{", stringify!($reissuer), ", ReissueError};")]
            ///
            /// # let http = service_fn(async |_: http::Request<Full<Bytes>>| {
            /// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
            /// # });
            /// // Microsoft Entra says `invalid_grant` to a client that asks too often as well.
            #[doc = concat!("let reissue = ", stringify!($reissuer), "::post(\"https://login.example.com/token\", http)")]
            ///     .on_error(|answer| {
            ///         let throttled = answer.member("/error_codes")?.as_array()?.contains(&50196.into());
            ///         throttled.then(|| ReissueError::transient("the issuer slows us down"))
            ///     });
            /// ```
            #[must_use]
            pub fn on_error(
                mut self,
                hook: impl Fn(&$crate::reissue::ErrorAnswer<'_>) -> Option<$crate::reissue::ReissueError>
                + Send
                + Sync
                + 'static,
            ) -> Self {
                self.exchange.contract.on_error = Some(Box::new(hook));
                self
            }

            /// Sends this header with each reissue, such as an API key. Its value is taken for a
            /// secret. A header about the connection or about how the body is sent, such as
            /// `Connection` or `Transfer-Encoding`, is a wrong configuration.
            #[must_use]
            pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
                self.exchange.header(name.as_ref(), value.as_ref());
                self
            }

            /// Allows an address with plain `http`, on which everybody on the way can read the
            /// secrets. Addresses of this machine itself need no permission.
            #[must_use]
            pub fn allow_plain_http(mut self) -> Self {
                self.exchange.allow_plain_http();
                self
            }
        }

        impl ::std::fmt::Debug for $reissuer {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($reissuer)).finish_non_exhaustive()
            }
        }
    };
}

/// The settings of an issuer whose contract is its own.
macro_rules! json_settings {
    ($reissuer:ident) => {
        impl $reissuer {
            /// Where an answer has the access token, as a JSON pointer (RFC 6901):
            /// `"/accessToken"` unless set.
            #[must_use]
            pub fn access_token_at(mut self, pointer: impl Into<String>) -> Self {
                self.exchange.contract.access_token = $crate::json::Pointer::new(pointer);
                self
            }

            /// Where an answer has the access token's lifetime in seconds, as a number or as
            /// text: `"/expiresIn"` unless set. One that is absent or cannot be read is ignored:
            /// the server decides.
            #[must_use]
            pub fn lifetime_at(mut self, pointer: impl Into<String>) -> Self {
                self.exchange.contract.lifetime = $crate::json::Pointer::new(pointer);
                self
            }

            /// Where an answer has the moment at which the access token expires, as RFC 3339 text
            /// or as a number of seconds since 1970: `"/accessTokenExpiresAt"` unless set. Where
            /// there is a [lifetime](Self::lifetime_at), that counts instead; one that is absent
            /// or cannot be read is ignored.
            #[must_use]
            pub fn expiry_at(mut self, pointer: impl Into<String>) -> Self {
                self.exchange.contract.expiry = Some($crate::json::Pointer::new(pointer));
                self
            }

            /// Where an error has its code: `"/code"` unless set.
            #[must_use]
            pub fn code_at(mut self, pointer: impl Into<String>) -> Self {
                self.exchange.contract.code = $crate::json::Pointer::new(pointer);
                self
            }

            /// This code, in the JSON body of an error of whatever status, or of a success without
            /// tokens, means that the refresh token was refused: the session ends. That is your word,
            /// so it counts with a 429, 500 or 503 as well. Can be given several times. A code that is
            /// a number is given as text.
            #[must_use]
            pub fn refused(mut self, code: impl Into<String>) -> Self {
                self.exchange.contract.refused_codes.push(code.into());
                self
            }

            /// This status means that the refresh token was refused, with whatever body: the
            /// session ends. For issuers without codes; only a 4xx other than 408 and 429 can be.
            #[must_use]
            pub fn refused_status(mut self, status: ::http::StatusCode) -> Self {
                self.exchange.contract.refused_statuses.push(status);
                self
            }
        }
    };
}

/// The settings of an issuer that speaks OAuth 2.0: who the client is, and what else it asks for.
macro_rules! oauth_settings {
    ($reissuer:ident) => {
        impl $reissuer {
            /// Authenticates the client with HTTP Basic (RFC 6749 section 2.3.1): both are
            /// form-encoded first. The secret may be empty. Of several ways to authenticate the last
            /// one counts.
            #[must_use]
            pub fn basic(
                mut self,
                client_id: impl Into<String>,
                client_secret: impl Into<String>,
            ) -> Self {
                self.grant.authenticate_by_basic(client_id.into(), client_secret.into());
                self
            }

            /// Authenticates the client with `client_id` and `client_secret` in the body (RFC 6749
            /// section 2.3.1), for issuers that do not take Basic.
            #[must_use]
            pub fn client_in_body(
                mut self,
                client_id: impl Into<String>,
                client_secret: impl Into<String>,
            ) -> Self {
                self.grant.authenticate_in_body(client_id.into(), client_secret.into());
                self
            }

            /// Names the client with `client_id` in the body and gives no secret: a public client
            /// (RFC 6749 section 3.2.1), or one that proves itself otherwise, by its certificate
            /// (RFC 8705) or an assertion ([`param`](Self::param)).
            #[must_use]
            pub fn public_client(mut self, client_id: impl Into<String>) -> Self {
                self.grant.name_client(client_id.into());
                self
            }

            /// Asks for this scope: names with single spaces between them (RFC 6749 section 3.3).
            /// Without it the issuer decides.
            #[must_use]
            pub fn scope(mut self, scope: impl Into<String>) -> Self {
                self.grant.scope(scope.into());
                self
            }

            /// Sends this parameter too, such as `resource` (RFC 8707) or `audience`. Can be given
            /// several times, with one name as well. Its value is taken for a secret.
            #[must_use]
            pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.grant.param(name.into(), value.into());
                self
            }

            /// Takes tokens whose `token_type` is this one as well, besides `Bearer` and `DPoP`;
            /// upper and lower case are the same. The session sends them as its
            /// [header](crate::SessionBuilder::header) says, whatever their type.
            #[must_use]
            pub fn token_type(mut self, name: impl Into<String>) -> Self {
                let types = &mut self.exchange.contract.token_types;
                types.get_or_insert_default().push(name.into());
                self
            }

            /// Sends a DPoP proof with each reissue (RFC 9449): `sign` makes it, with a key and a
            /// signer of yours, and it goes into the header `DPoP`.
            ///
            /// When the issuer answers `use_dpop_nonce` with exactly one `DPoP-Nonce`, `sign` is
            /// called again with that nonce and the request sent again at once (section 8), once in
            /// a reissue: the first was rejected, and its refresh token is unused. The newest nonce
            /// of any answer stands in the next proof (section 8.2). An error of `sign` counts as
            /// [transient](crate::ReissueError::transient), as nothing was sent with that proof.
            ///
            /// This is about the reissue alone. Requests to the API carry what the session's header
            /// and your own layers put on them.
            ///
            /// ```
            /// # use bytes::Bytes;
            /// # use http_body_util::Full;
            /// # use tower::service_fn;
            /// # fn sign_jwt(_: serde_json::Value) -> Result<String, tower_token_refresh::BoxError> {
            /// #     Ok("proof".to_owned())
            /// # }
            #[doc = concat!("use tower_token_refresh::", stringify!($reissuer), ";")]
            ///
            /// # let http = service_fn(async |_: http::Request<Full<Bytes>>| {
            /// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::new())))
            /// # });
            #[doc = concat!("let reissue = ", stringify!($reissuer), "::post(\"https://login.example.com/token\", http)")]
            ///     .public_client("app")
            ///     .dpop(|request| {
            ///         sign_jwt(serde_json::json!({
            ///             "htm": request.method().as_str(),
            ///             "htu": request.uri().to_string(),
            ///             "nonce": request.nonce(), // left out where it is null
            ///             // … and `jti` and `iat`, which are yours …
            ///         }))
            ///     });
            /// ```
            #[must_use]
            pub fn dpop(
                mut self,
                sign: impl Fn($crate::reissue::DpopRequest<'_>) -> Result<String, $crate::error::BoxError>
                + Send
                + Sync
                + 'static,
            ) -> Self {
                self.grant.dpop(Box::new(sign));
                self
            }
        }
    };
}

pub(super) use client_settings;
pub(super) use json_settings;
pub(super) use oauth_settings;
