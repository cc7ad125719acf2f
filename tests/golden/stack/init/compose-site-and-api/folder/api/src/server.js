app.get("/healthz", async () => ({ok: true}));
