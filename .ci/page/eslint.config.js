// The rules that the pages' scripts keep.
import js from "@eslint/js";
import globals from "globals";

const PARSED = ["innerHTML", "outerHTML", "insertAdjacentHTML"]; // text only ever becomes text

export default [
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2022, globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: "error",
      "no-eval": "error",
      "no-implicit-coercion": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-restricted-properties": ["error", ...PARSED.map((property) => ({ property }))],
      "no-var": "error",
      "prefer-const": ["error", { destructuring: "all" }],
    },
  },
  { files: ["**/report/*.js"], languageOptions: { sourceType: "script" } },
];
