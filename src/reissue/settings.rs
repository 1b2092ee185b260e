//! What every reissuer over an HTTP client has in common: its constructor, and the settings of its
//! [`Exchange`](super::exchange::Exchange).
//!
//! A macro, as a user should find them at the reissuer itself, and in one chain with its own.

/// Takes the fields that the reissuer has besides its `exchange`, with their first values.
macro_rules! settings {
    ($reissuer:ident { $($field:ident: $value:expr),* }) => {
        impl $reissuer {
            /// A reissuer that posts to this address: `https`, or this machine.
            ///
            /// `client` is any tower service whose requests have a body that can be made of
            /// [`Bytes`](::bytes::Bytes). It is cloned for each reissue. It should neither follow
            /// redirects, which would carry the refresh token elsewhere, nor keep cookies.
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
                    exchange: super::exchange::Exchange::post(uri.as_ref(), client),
                    $($field: $value),*
                }
            }

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
                self.exchange.contract.expiry = $crate::json::Pointer::new(pointer);
                self
            }

            /// Where an error has its code: `"/code"` unless set.
            #[must_use]
            pub fn code_at(mut self, pointer: impl Into<String>) -> Self {
                self.exchange.contract.code = $crate::json::Pointer::new(pointer);
                self
            }

            /// This code, in the JSON body of an error of whatever status, means that the refresh
            /// token was refused: the session ends. Can be given several times. A code that is a
            /// number is given as text.
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

            /// Sends this header with each reissue, such as an API key. Its value is taken for a
            /// secret.
            #[must_use]
            pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
                self.exchange.header(name.as_ref(), value.as_ref());
                self
            }

            /// Allows an address with plain `http`, on which everybody on the way can read the
            /// refresh token. Addresses of this machine itself need no permission.
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

pub(super) use settings;
