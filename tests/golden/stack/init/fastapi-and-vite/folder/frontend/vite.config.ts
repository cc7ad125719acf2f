export default { build: { outDir: "public/site" } }
