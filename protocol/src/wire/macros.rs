//! Declaring structures and enumerations once, for both directions.

/// Declares a structure: a map whose keys are the names of the fields, written in this order.
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $Name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $Type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            $($(#[$field_meta])* pub $field: $Type,)*
        }

        impl $crate::wire::Wire for $Name {
            fn encode(&self, out: &mut $crate::wire::Encoder<'_>) {
                out.map(0 $(+ $crate::wire::Field::entries(&self.$field))*);
                $($crate::wire::Field::put(&self.$field, stringify!($field), out);)*
            }

            fn decode(
                input: &mut $crate::wire::Decoder<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                let _map = $crate::wire::MapView::new(input)?;
                Ok(Self {
                    $($field: $crate::wire::Field::take(stringify!($field), &_map)?,)*
                })
            }
        }
    };
}

/// Declares an enumeration whose values are strings on the wire.
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $Name:ident {
        $($(#[$variant_meta:meta])* $Variant:ident = $text:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $Name {
            $($(#[$variant_meta])* $Variant,)*
        }

        impl $Name {
            /// Every value, in declared order.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)*];

            /// The value as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::wire::Wire for $Name {
            fn encode(&self, out: &mut $crate::wire::Encoder<'_>) {
                out.str(self.as_str());
            }

            fn decode(
                input: &mut $crate::wire::Decoder<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                match input.str()? {
                    $($text => Ok(Self::$Variant),)*
                    other => Err($crate::wire::DecodeError::new(format!(
                        "`{}` is none of {}",
                        other.escape_debug(),
                        [$($text),*].join(", "),
                    ))),
                }
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};
