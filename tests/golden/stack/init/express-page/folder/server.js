const app = require("express")();
app.get("/", (request, response) => response.send("shop"));
app.listen(process.env.PORT, process.env.HOST);
