//! The declaration macro: one text, a typed struct and its description.

/// Declares a configuration struct together with its schema.
///
/// Each field reads `name: Type = description,`, where the description is an expression of the constructors in
/// [`schema`](crate::model::schema) (in scope without import); `name as "Other-Name": …` gives it another name outside.
/// Doc comments become the struct's documentation and the schema's descriptions alike.
///
/// The struct derives `Debug`, `Clone` and `Deserialize`, and gains `schema() -> Record` and `schema_kind() -> Field`
/// (for use as a nested record). Values must have been filled by the schema before they are deserialized: a field
/// without default must have a type that accepts null.
#[macro_export]
macro_rules! config_record {
    (
        $(#[doc = $struct_doc:literal])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(as $outside:literal)? : $type:ty = $description:expr
            ),* $(,)?
        }
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Debug, Clone, ::serde::Deserialize)]
        #[allow(unreachable_pub, reason = "the struct of a private module is declared alike")]
        $visibility struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde(rename = $outside)])?
                pub $field: $type,
            )*
        }

        #[allow(unreachable_pub, reason = "as above")]
        impl $name {
            /// The description of this record: fields, rules, defaults.
            $visibility fn schema() -> $crate::model::schema::Record {
                #[allow(unused_imports, reason = "not every record uses the constructors")]
                use $crate::model::schema::*;
                Record::new(vec![$(
                    Field::from($description)
                        .named($crate::config_record!(@name $field $($outside)?))
                        .documented(&[$($doc),*]),
                )*])
            }

            /// This record as the kind of a field of another record.
            #[allow(dead_code, reason = "outermost records are not nested")]
            $visibility fn schema_kind() -> $crate::model::schema::Field {
                $crate::model::schema::record(Self::schema())
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $outside:literal) => { $outside };
}
