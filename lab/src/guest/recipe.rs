//! Recipes: what goes into a guest image (`fixtures/NAME/recipe.toml`), embedded in the program.
//!
//! A recipe's [`Recipe::key`] covers its text, the files it embeds and the version of the code that executes it, so
//! that a prepared image is rebuilt when, and only when, one of them changes.

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Raised when the code in this folder makes something else of the same recipe and packages.
const BUILDER_VERSION: u32 = 2;

/// Files that recipes name as `source`.
const COMMON: &[(&str, &str)] = &[
    ("group", include_str!("../../../fixtures/common/group")),
    ("hosts", include_str!("../../../fixtures/common/hosts")),
    ("init", include_str!("../../../fixtures/common/init")),
    ("inittab", include_str!("../../../fixtures/common/inittab")),
    ("passwd", include_str!("../../../fixtures/common/passwd")),
    (
        "power-button",
        include_str!("../../../fixtures/common/power-button"),
    ),
    ("profile", include_str!("../../../fixtures/common/profile")),
];

const RECIPES: &[(&str, &str)] = &[
    (
        "cloud-6.12",
        include_str!("../../../fixtures/cloud-6.12/recipe.toml"),
    ),
    (
        "generic",
        include_str!("../../../fixtures/generic/recipe.toml"),
    ),
    (
        "minimal",
        include_str!("../../../fixtures/minimal/recipe.toml"),
    ),
    (
        "userland",
        include_str!("../../../fixtures/userland/recipe.toml"),
    ),
];

/// Names of the recipes there are.
pub fn recipe_names() -> impl Iterator<Item = &'static str> {
    RECIPES.iter().map(|(name, _)| *name)
}

/// A recipe as its file states it; the files under `fixtures/` explain the keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    #[serde(skip)]
    pub(super) name: String,
    #[expect(dead_code, reason = "resolved before the recipe is read")]
    like: Option<String>,
    #[expect(dead_code, reason = "only part of the key, through the recipe's text")]
    version: u32,
    pub(super) kernel: String,
    pub(super) modules: Vec<String>,
    pub(super) packages: Vec<String>,
    /// Also everything that `packages` depend on.
    #[serde(default)]
    pub(super) closure: bool,
    /// Path prefixes to take from packages; empty: all.
    #[serde(default)]
    pub(super) include: Vec<String>,
    /// Path prefixes to leave out.
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) merged_usr: bool,
    pub(super) applets: Option<String>,
    #[serde(default)]
    pub(super) directories: Vec<String>,
    #[serde(default)]
    pub(super) files: Vec<RecipeFile>,
    #[serde(default)]
    pub(super) links: Vec<RecipeLink>,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipeFile {
    pub(super) path: String,
    source: String,
    mode: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecipeLink {
    pub(super) path: String,
    pub(super) target: String,
}

impl RecipeFile {
    /// The embedded content; a test makes sure that every recipe names only files that exist.
    pub(super) fn content(&self) -> &'static str {
        let found = COMMON.iter().find(|(name, _)| *name == self.source);
        found.map_or("", |(_, content)| content)
    }

    pub(super) fn mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o644)
    }
}

impl Recipe {
    /// The embedded recipe of that name.
    pub(super) fn find(name: &str) -> Option<Self> {
        // Embedded text: a test parses each one.
        let table = table(name)?;
        let text = toml::to_string(&table).ok()?;
        let mut recipe: Self = table.try_into().ok()?;
        recipe.name = name.to_owned();
        recipe.text = text;
        Some(recipe)
    }

    /// Identifies everything that this program puts in, packages excepted.
    pub(super) fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(BUILDER_VERSION.to_le_bytes());
        hash.update(&self.text);
        for file in &self.files {
            hash.update((file.content().len() as u64).to_le_bytes());
            hash.update(file.content());
        }
        hex(&hash.finalize())
    }

    /// Whether a path of a package goes into the image.
    pub(super) fn takes(&self, path: &str) -> bool {
        let under = |prefix: &String| {
            path.strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        (self.include.is_empty() || self.include.iter().any(under))
            && !self.exclude.iter().any(under)
    }
}

/// What a recipe's file says, on top of what the recipe says that it is `like`.
fn table(name: &str) -> Option<toml::Table> {
    let (_, text) = RECIPES.iter().find(|(known, _)| *known == name)?;
    let own: toml::Table = toml::from_str(text).ok()?;
    let mut whole = match own.get("like") {
        Some(like) => table(like.as_str()?)?,
        None => toml::Table::new(),
    };
    whole.extend(own);
    Some(whole)
}

/// Lower-case hexadecimal digits of `bytes`.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_recipe_parses_and_finds_its_files() {
        for name in recipe_names() {
            let recipe: Recipe = table(name).unwrap().try_into().unwrap();
            for file in &recipe.files {
                assert!(!file.content().is_empty(), "{name}: {}", file.path);
                assert!(
                    u32::from_str_radix(&file.mode, 8).is_ok(),
                    "{name}: {}",
                    file.path
                );
            }
            assert!(Recipe::find(name).is_some());
        }
        assert!(Recipe::find("nope").is_none());
    }

    #[test]
    fn keys_differ_between_recipes_and_are_stable() {
        let key = |name| Recipe::find(name).unwrap().key();
        assert_ne!(key("minimal"), key("userland"));
        assert_eq!(key("minimal"), key("minimal"));
        assert_eq!(key("minimal").len(), 64);
    }

    #[test]
    fn a_recipe_like_another_changes_what_it_names() {
        let (base, newer) = (
            Recipe::find("minimal").unwrap(),
            Recipe::find("cloud-6.12").unwrap(),
        );
        assert_eq!(newer.modules, base.modules);
        assert_ne!(newer.kernel, base.kernel);
        assert_ne!(newer.key(), base.key());
    }

    #[test]
    fn prefixes_are_whole_path_parts() {
        let mut recipe = Recipe::find("minimal").unwrap();
        recipe.include = vec!["/usr".into()];
        recipe.exclude = vec!["/usr/share/doc".into()];
        for (path, taken) in [
            ("/usr/bin/x", true),
            ("/usr", true),
            ("/usrx", false),
            ("/usr/share/doc/a", false),
            ("/usr/share/docs", true),
        ] {
            assert_eq!(recipe.takes(path), taken, "{path}");
        }
    }
}
