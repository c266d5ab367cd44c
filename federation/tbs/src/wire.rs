//! The encodings of the public types: fixed-size compressed bytes (borsh) and lowercase hexadecimal (serde, `Display`).

use crate::error::EncodingError;

/// Decodes exactly `N` bytes of lowercase hexadecimal.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], EncodingError> {
    if text.len() != 2 * N {
        return Err(EncodingError::Length { expected: N, got: text.len().div_ceil(2) });
    }
    // One text for one value: other crates compare and index these as strings.
    if text.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(EncodingError::Hex);
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| EncodingError::Hex)?;
    Ok(bytes)
}

/// Lets serde read a value by its `FromStr`.
pub(crate) struct TextVisitor<T>(pub(crate) std::marker::PhantomData<T>);

impl<T> serde::de::Visitor<'_> for TextVisitor<T>
where
    T: std::str::FromStr<Err = EncodingError>,
{
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string of lowercase hexadecimal")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Declares a public type around one point, with all its encodings.
macro_rules! point_type {
    ($(#[$doc:meta])* $name:ident($group:ident)) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(pub(crate) crate::curve::$group);

        impl $name {
            /// Bytes of the encoding.
            pub const SIZE: usize = crate::curve::$group::SIZE;

            /// The compressed encoding.
            pub fn to_bytes(&self) -> [u8; crate::curve::$group::SIZE] {
                self.0.to_bytes()
            }

            /// Decodes the compressed encoding.
            ///
            /// # Errors
            /// [`EncodingError`](crate::EncodingError) unless the bytes are the one canonical encoding of a point in
            /// the subgroup that isn't the identity.
            pub fn from_bytes(
                bytes: &[u8; crate::curve::$group::SIZE],
            ) -> Result<Self, crate::error::EncodingError> {
                crate::curve::$group::from_bytes(bytes).map(Self)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = crate::error::EncodingError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                let error = crate::error::EncodingError::Length { expected: Self::SIZE, got: bytes.len() };
                Self::from_bytes(bytes.try_into().map_err(|_| error)?)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.to_bytes()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::error::EncodingError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::from_bytes(&crate::wire::from_hex(text)?)
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.to_bytes().hash(state);
            }
        }

        impl borsh::BorshSerialize for $name {
            fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
                writer.write_all(&self.to_bytes())
            }
        }

        impl borsh::BorshDeserialize for $name {
            fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
                let mut bytes = [0; Self::SIZE];
                reader.read_exact(&mut bytes)?;
                Ok(Self::from_bytes(&bytes)?)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(crate::wire::TextVisitor(std::marker::PhantomData))
            }
        }
    };
}

/// Declares a public type around one secret scalar that is never zero: no serde, no printing, wiped when dropped.
macro_rules! secret_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(pub(crate) crate::curve::Scalar);

        impl $name {
            /// Bytes of the encoding.
            pub const SIZE: usize = crate::curve::Scalar::SIZE;

            /// The encoding: 32 bytes, big-endian. A secret.
            pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; crate::curve::Scalar::SIZE]> {
                self.0.to_bytes()
            }

            /// Decodes 32 big-endian bytes.
            ///
            /// # Errors
            /// [`EncodingError::Scalar`](crate::EncodingError::Scalar) for zero and for values not below the group order.
            pub fn from_bytes(
                bytes: &[u8; crate::curve::Scalar::SIZE],
            ) -> Result<Self, crate::error::EncodingError> {
                let scalar = crate::curve::Scalar::from_bytes(bytes)?;
                if scalar.is_zero() { Err(crate::error::EncodingError::Scalar) } else { Ok(Self(scalar)) }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                subtle::ConstantTimeEq::ct_eq(&self.0, &other.0).into()
            }
        }

        impl Eq for $name {}

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }

        impl borsh::BorshSerialize for $name {
            fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
                writer.write_all(self.to_bytes().as_ref())
            }
        }

        impl borsh::BorshDeserialize for $name {
            fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
                let mut bytes = zeroize::Zeroizing::new([0; Self::SIZE]);
                reader.read_exact(bytes.as_mut())?;
                Ok(Self::from_bytes(&bytes)?)
            }
        }
    };
}

pub(crate) use {point_type, secret_type};
