from fastapi import FastAPI

api: FastAPI = FastAPI()


@api.get("/api/orders")
def orders() -> str:
    return "no orders"
