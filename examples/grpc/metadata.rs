//! What the user sends with each call.

use std::str::FromStr;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap,
};

/// Padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What gRPC and HTTP/2 say for themselves: it would be dropped on the way, or break the call.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "grpc-message",
    "grpc-message-type",
    "grpc-status",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

pub enum Metadata {
    Ascii(AsciiMetadataKey, AsciiMetadataValue),
    Binary(BinaryMetadataKey, BinaryMetadataValue),
}

impl Metadata {
    pub fn add_to(&self, all: &mut MetadataMap) {
        match self {
            Self::Ascii(key, value) => drop(all.append(key, value.clone())),
            Self::Binary(key, value) => drop(all.append_bin(key, value.clone())),
        }
    }
}

/// `key=value`. A value may be a secret, and is not repeated in what is wrong with it.
impl FromStr for Metadata {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("it has to be KEY=VALUE")?;
        let key = key.to_ascii_lowercase();
        let no_key =
            |_| format!("{key:?} can't be a key: letters, digits, _, - and . can be in one");
        if key == "authorization" {
            return Err("authorization is where the session puts the access token".to_owned());
        }
        if RESERVED.contains(&&*key) {
            return Err(format!("{key:?} is for the protocol to say"));
        }
        if key.ends_with("-bin") {
            let bytes = BASE64.decode(value);
            let bytes = bytes.map_err(|_| format!("the value of {key:?} is no base64"))?;
            let key = BinaryMetadataKey::from_bytes(key.as_bytes()).map_err(no_key)?;
            return Ok(Self::Binary(key, BinaryMetadataValue::from_bytes(&bytes)));
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(format!(
                "the value of {key:?} is not ASCII: send it as {key}-bin, in base64"
            ));
        }
        let value = value
            .parse()
            .map_err(|_| format!("{key:?} can't have this value"))?;
        let key = AsciiMetadataKey::from_bytes(key.as_bytes()).map_err(no_key)?;
        Ok(Self::Ascii(key, value))
    }
}
