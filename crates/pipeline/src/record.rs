//! Mappings with known keys. The struct, its reader and its JSON Schema come from one declaration, so that a key cannot
//! be in one of them and missing in another.

use serde_json::{Map, Value as Json, json};

/// A key of a record, for the schema.
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) about: &'static str,
    pub(crate) schema: Json,
}

/// Declares a record: documented keys with their types, which of them are required, and keys that come later.
macro_rules! record {
    (
        $(#[doc = $about:literal])*
        $name:ident, example $example:literal {
            $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)+
        }
        required { $($required:literal => $missing:literal,)* }
        later { $($later:literal => $instead:literal,)* }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Default)]
        pub(crate) struct $name {
            $($(#[doc = $doc])+ pub(crate) $field: Option<At<$type>>,)+
        }

        impl Value for $name {
            const TAKES: &'static str = concat!("a mapping with", $(" `", stringify!($field), "`",)+);
            const EXAMPLE: &'static str = $example;

            fn read(node: &Node, report: &mut Report) -> Option<Self> {
                let entries = node.entries::<Self>(report)?;
                let mut record = Self::default();
                for entry in entries {
                    report.inside(&entry.key, |report| match entry.key.as_str() {
                        $(stringify!($field) => record.$field = At::read(&entry.value, report),)+
                        $($later => report.error(entry.place, comes_later($later, $instead)),)*
                        _ => {}
                    });
                    if ![$(stringify!($field),)+ $($later,)*].contains(&entry.key.as_str()) {
                        unknown_key(entry, &[$(stringify!($field)),+], report);
                    }
                }
                $(if report.complete && !entries.iter().any(|entry| entry.key == $required) {
                    report.error(node.place, fault(concat!("`", $required, "` is missing"), $missing, concat!("add `", $required, ":`")));
                })*
                Some(record)
            }

            fn schema() -> Json {
                let fields = [$(crate::record::Field {
                    key: stringify!($field),
                    about: concat!($($doc),+),
                    schema: <$type as Value>::schema(),
                },)+];
                crate::record::schema(concat!($($about),*), &[$($required),*], fields)
            }
        }
    };
}
pub(crate) use record;

/// The JSON Schema of a record.
pub(crate) fn schema(about: &str, required: &[&str], fields: impl IntoIterator<Item = Field>) -> Json {
    let describe = |field: Field| {
        let mut schema = field.schema;
        if let Json::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), Json::String(field.about.trim().to_owned()));
        }
        (field.key.to_owned(), schema)
    };
    let properties: Map<String, Json> = fields.into_iter().map(describe).collect();
    json!({
        "type": "object",
        "description": about.trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
