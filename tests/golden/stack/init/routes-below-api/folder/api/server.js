require("express")().get("/users", (_, answer) => answer.send([])).listen(process.env.PORT, "127.0.0.1");
